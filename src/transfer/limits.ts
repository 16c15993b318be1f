/** Deadlines and aborts: each operation is watched by at most one timer and one listener, which go with it. */
import { integer, options as optionsOf } from '../core/check.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { onAbort } from '../pool/abort.js';
import type { CallLimits } from './transfer.js';

/** What a timer of Node can wait at most. */
export const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export interface Limits {
  readonly signal?: AbortSignal;
  readonly timeoutMs: number;
}

/** Checks limits, fills in the default. Throws ERR_INVALID_ARGUMENT, and ERR_ABORTED where it is too late already. */
export function checkLimits(limits: CallLimits | undefined, defaultMs: number): Limits {
  const { signal, timeoutMs = defaultMs } = optionsOf('limits', limits);
  integer('timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS);
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw errors.invalidArgument('signal', signal, 'an AbortSignal');
  }
  if (signal?.aborted) throw errors.aborted(signal.reason);
  return { signal, timeoutMs };
}

/** Limits of the steps of one call: each has what the others have left. */
export function shared(limits: Limits): () => Limits {
  const end = performance.now() + limits.timeoutMs;
  return () => ({ signal: limits.signal, timeoutMs: Math.max(1, Math.ceil(end - performance.now())) });
}

/** Calls `expire` once when a limit is reached, unless the returned function was called before. */
export function watch(what: string, limits: Limits, expire: (error: MooncakeError) => void): () => void {
  const { signal, timeoutMs } = limits;
  const end = (error: MooncakeError) => {
    stop();
    expire(error);
  };
  const timer = setTimeout(() => end(errors.timeout(what, timeoutMs)), timeoutMs);
  const forget = signal && onAbort(signal, () => end(errors.aborted(signal.reason)));
  const stop = () => {
    clearTimeout(timer);
    forget?.();
  };
  return stop;
}
