/**
 * What halves of an engine say to each other through the engine: handshakes and step metadata, as bytes. Each says for which
 * run it is meant: a worker half that was made anew knows nothing of what an earlier one was told, and its memory may be
 * another's by now.
 */
import { errors } from '../core/errors.js';
import { pack, unpack } from '../transfer/messages.js';
import { MAX_FRAME_BYTES } from './frames.js';

const VERSION = 1;

/** A run of an engine at a service: `INSTANCE:GENERATION`. */
export type Run = string;

export interface Handshake {
  readonly run: Run;
  readonly rank: number;
  /** What the worker half said of itself. */
  readonly data: unknown;
}

export function encodeHandshake({ run, rank, data }: Handshake): Uint8Array {
  return pack('handshake', [VERSION, run, rank, data], MAX_FRAME_BYTES);
}

/** Throws ERR_PROTOCOL, ERR_INVALID_ARGUMENT. */
export function decodeHandshake(argument: string, bytes: unknown): Handshake {
  const [version, run, rank, data] = parts(argument, bytes);
  if (version !== VERSION || typeof run !== 'string' || typeof rank !== 'number') {
    throw errors.protocol(`${argument} is no handshake of version ${VERSION}`, version);
  }
  return { run, rank, data };
}

/** `runs`: of each rank, as its handshake said. */
export function encodeMeta(runs: readonly Run[], data: unknown): Uint8Array {
  return pack('meta', [VERSION, runs, data], MAX_FRAME_BYTES);
}

/** The metadata, for the worker half of `rank` in `run`. Throws ERR_STALE where it is meant for another run. */
export function decodeMeta(bytes: unknown, run: Run, rank: number): unknown {
  const [version, runs, data] = parts('meta', bytes);
  if (version !== VERSION || !Array.isArray(runs)) throw errors.protocol(`meta is not of version ${VERSION}`, version);
  if (runs[rank] !== run) {
    throw errors.stale('meta', `it was made for run ${runs[rank] ?? 'none'} of rank ${rank}, this is ${run}`);
  }
  return data;
}

function parts(argument: string, bytes: unknown): unknown[] {
  if (!(bytes instanceof Uint8Array)) throw errors.invalidArgument(argument, bytes, 'binary');
  const value = unpack(bytes);
  if (!Array.isArray(value)) throw errors.protocol(`${argument} is no array`, value);
  return value;
}

/** Whether a step's metadata asks for anything: some list in it, however deep, holds a value. */
export function hasWork(data: unknown): boolean {
  if (data === null || data === undefined) return false;
  if (typeof data !== 'object' || ArrayBuffer.isView(data)) return true;
  return Object.values(data).some(hasWork);
}
