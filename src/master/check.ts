/** Argument predicates of the service. */
import { errors } from '../core/errors.js';
import { Keys } from '../core/keys.js';

export function checkUuid(argument: string, value: unknown): void {
  if (typeof value !== 'string' || !/^[0-9a-f]{32}$/.test(value)) {
    throw errors.invalidArgument(argument, value, '32 lower-case hex digits');
  }
}

export function checkKeys(keys: unknown): asserts keys is Keys {
  if (!(keys instanceof Keys)) throw errors.invalidArgument('keys', keys, 'Keys');
}
