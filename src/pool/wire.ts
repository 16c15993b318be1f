/**
 * What travels between the pool and its workers, whichever door it goes through. A batch holds jobs; a job is a kind, its
 * bulk arrays and its small options. Bulk arrays cross in one of three ways, cheapest first: by reference when the caller
 * keeps them in shared memory, by their place in the batch's lane (lanes.ts), or cloned with the message where there is no
 * shared memory. Errors cross as records: structured clone keeps neither the class nor the fields of a MooncakeError.
 */
import { type ErrorCode, errors, MooncakeError, show } from '../core/errors.js';
import type { PrefixReaderHandle } from '../core/prefix-reader.js';

/** The tasks a worker knows (workers/tasks.ts). */
export type TaskKind = 'hash' | 'match' | 'hashAndMatch' | 'plan';

export type TypedArray =
  | Uint8Array<ArrayBufferLike>
  | Int32Array<ArrayBufferLike>
  | Uint32Array<ArrayBufferLike>
  | Float64Array<ArrayBufferLike>
  | BigUint64Array<ArrayBufferLike>;

/** The place of an array in a lane: its type (an index into `VIEWS`), its byte offset in the arena and its length. */
export interface Ref {
  view: number;
  offset: number;
  length: number;
}

export const VIEWS = [Uint8Array, Int32Array, Uint32Array, Float64Array, BigUint64Array] as const;

/** The bulk arrays and the small rest of a task, before and after. */
export interface Payload<A = TypedArray> {
  arrays: A[];
  /** Anything that structured clone takes. */
  rest: unknown;
}

export interface Job extends Payload<TypedArray | Ref> {
  kind: TaskKind;
}

export interface Batch {
  jobs: Job[];
  /** The lane this batch owns, and how far its inputs fill it; results follow them. -1: no shared memory. */
  lane: number;
  top: number;
}

export interface Result {
  /** What the task took in the worker. */
  ms: number;
  done?: Payload<TypedArray | Ref>;
  error?: ErrorRecord;
}

export interface Reply {
  results: Result[];
}

/** What a worker needs to know once. */
export interface WorkerSetup {
  arena?: SharedArrayBuffer;
  /** The shared build of the core, compiled by the pool's own thread. */
  core?: WebAssembly.Module;
  /** One reader of the shared index for each lane: a batch reads with its lane's. */
  readers?: PrefixReaderHandle[];
}

export interface ErrorRecord {
  code: ErrorCode;
  message: string;
  argument?: string;
  value?: unknown;
  stack?: string;
}

function cloneable(value: unknown): unknown {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol')) {
    return value;
  }
  try {
    return structuredClone(value);
  } catch {
    return show(value);
  }
}

/** Whether a message can carry this. */
export function isCloneable(value: unknown): boolean {
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}

/** An error as a record; what is not a MooncakeError becomes ERR_WORKER with its message. */
export function packError(error: unknown): ErrorRecord {
  const known = error instanceof MooncakeError ? error : errors.worker(String((error as Error)?.message ?? error));
  return {
    code: known.code,
    message: known.message,
    argument: known.argument,
    value: cloneable(known.value),
    stack: (error as Error)?.stack,
  };
}

/** The record as the error it was; the stack is the worker's. */
export function unpackError({ code, message, argument, value, stack }: ErrorRecord): MooncakeError {
  const error = new MooncakeError(code, message, { argument, value });
  if (stack) error.stack = stack;
  return error;
}
