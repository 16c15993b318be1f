/** Errors of the addon, which are numbers with a text, as MooncakeErrors. */
import { errors, MooncakeError } from '../../core/errors.js';
import { NATIVE_CODES } from '../../native/addon.js';
import type { Move } from '../move-options.js';

export type NativeCode = (typeof NATIVE_CODES)[number];

/** Runs a call of the addon; its errors by their codes. */
export function attempt<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(what, error);
  }
}

export function fromNative(what: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message: string };
  const name = typeof code === 'number' ? NATIVE_CODES[code] : undefined;
  return name === undefined ? error : failure(name, what, message);
}

export function failure(code: NativeCode, what: string, detail: string, move?: Move): MooncakeError {
  switch (code) {
    case 'ok':
    case 'system':
    case 'peer':
      return errors.peer(what, detail);
    case 'invalidArgument':
      return new MooncakeError('ERR_INVALID_ARGUMENT', `${what}: ${detail}`, { argument: what });
    case 'segment':
      return new MooncakeError('ERR_SEGMENT', `${what}: ${detail}`, { argument: what });
    case 'timeout':
      return errors.timeout(`the move with ${what}`, move?.limits.timeoutMs ?? 0);
    case 'aborted':
      return errors.aborted(move?.limits.signal?.reason);
    case 'closed':
      return errors.closed(what);
    case 'corrupt':
      return errors.corrupt(`${what}: ${detail}`);
    case 'protocol':
      return errors.protocol(`${what}: ${detail}`);
    case 'queueFull':
      return new MooncakeError('ERR_QUEUE_FULL', `${what}: ${detail}`, { argument: what });
    case 'notSupported':
      return errors.notSupported(what, detail);
    case 'outOfMemory':
      return new MooncakeError('ERR_OUT_OF_MEMORY', `${what}: ${detail}`, { argument: what });
  }
}
