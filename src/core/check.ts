/** Argument predicates: each returns its value in the type wanted or throws ERR_INVALID_ARGUMENT naming it. */
import { errors, show } from './errors.js';

/** An integer from `min` to `max`, both included. */
export function integer(argument: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw errors.invalidArgument(argument, value, `an integer from ${min} to ${max}`);
  }
  return value;
}

/** One of a few strings or numbers. */
export function oneOf<T extends string | number>(argument: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) {
    throw errors.invalidArgument(argument, value, `one of ${choices.map(show).join(', ')}`);
  }
  return value as T;
}

export function string(argument: string, value: unknown): string {
  if (typeof value !== 'string') throw errors.invalidArgument(argument, value, 'a string');
  return value;
}

export function boolean(argument: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw errors.invalidArgument(argument, value, 'true or false');
  return value;
}

/** A plain options object; undefined counts as empty. */
export function options<T extends object>(argument: string, value: T | undefined): T {
  if (value === undefined) return {} as T;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw errors.invalidArgument(argument, value, 'an object');
  }
  return value;
}

interface TypedArray extends ArrayBufferView {
  readonly length: number;
  at(index: number): unknown;
}

/**
 * A typed array that `fits` (is an instance of what is wanted), over memory that is still there: an array whose buffer
 * went to a worker looks empty, and would hash, sum or move nothing. A proxy of a typed array is none.
 */
export function typedArray<T extends TypedArray>(argument: string, value: unknown, fits: boolean, expected: string): T {
  if (!fits || !ArrayBuffer.isView(value)) throw errors.invalidArgument(argument, value, expected);
  const array = value as T;
  if (array.length === 0) {
    try {
      array.at(0);
    } catch {
      throw errors.invalidArgument(argument, value, 'over a buffer that is neither detached nor shrunk');
    }
  }
  return array;
}

/** Bytes over any buffer. */
export function bytes(argument: string, value: unknown): Uint8Array {
  let array = value;
  if (value instanceof ArrayBuffer) {
    try {
      array = new Uint8Array(value);
    } catch {
      throw errors.invalidArgument(argument, value, 'a buffer that is not detached');
    }
  }
  return typedArray(argument, array, array instanceof Uint8Array, 'a Uint8Array or an ArrayBuffer');
}

/** Whether a text has no lone surrogates. ES2024; in every Node since 20. */
export function isWellFormed(text: string): boolean {
  return (text as string & { isWellFormed(): boolean }).isWellFormed();
}
