/**
 * Reads a Mooncake trace: JSON lines of {timestamp, input_length, output_length, hash_ids}. Bytes are read as they come
 * and cut at line ends, so the file never is one string; CRLF, a missing last newline and blank lines are accepted.
 * Everything else that is not a request is refused with ERR_TRACE, its line and the value.
 */
import { createReadStream } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { options as checkOptions, string } from '../core/check.js';
import { errors, MooncakeError, show } from '../core/errors.js';
import { readLines } from '../lines.js';
import { type Trace, TraceBuilder, type TraceRequest } from './trace.js';

/** Bytes of a line; the longest request that a trace may have is a million ids of at most 16 digits. */
const MAX_LINE = 1 << 25;

/** A trace from chunks of bytes. */
export async function parseTrace(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Trace> {
  const iterable = typeof chunks === 'object' && chunks !== null;
  if (!iterable || !(Symbol.asyncIterator in chunks || Symbol.iterator in chunks)) {
    throw errors.invalidArgument('chunks', chunks, 'an iterable of Uint8Arrays');
  }
  const builder = new TraceBuilder();
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });
  const tooLong = (line: number, bytes: number) => errors.trace(line, `longer than ${MAX_LINE} bytes`, bytes);
  let line = 0;
  let requests = 0;
  for await (const bytes of readLines(plainBytes(chunks), MAX_LINE, tooLong)) {
    line++;
    const request = parseLine(bytes, line, decoder);
    if (request === undefined) continue;
    builder.add(request, line);
    requests++;
  }
  if (requests === 0) throw errors.trace(line, 'no request in the whole trace');
  return builder.build();
}

/** The chunks, if they are bytes and not those of a gzip file. */
async function* plainBytes(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let count = 0;
  for await (const chunk of chunks) {
    if (!(chunk instanceof Uint8Array)) throw errors.invalidArgument(`chunks[${count}]`, chunk, 'a Uint8Array');
    if (count === 0 && chunk[0] === 0x1f && chunk[1] === 0x8b) {
      throw errors.trace(1, 'the file is gzip; unpack it first (gunzip)');
    }
    count++;
    yield chunk;
  }
}

/** Reads the trace in the file `path`, or on standard input for `-`. `signal` ends it early with ERR_ABORTED. */
export async function readTrace(path: string, options?: { signal?: AbortSignal }): Promise<Trace> {
  if (string('path', path).includes('\0')) throw errors.invalidArgument('path', path, 'a path without NUL');
  const { signal } = checkOptions('options', options);
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw errors.invalidArgument('signal', signal, 'an AbortSignal');
  }
  const stream = path === '-' ? process.stdin : createReadStream(path, { highWaterMark: 1 << 20 });
  // The stream itself is given up, or a wait for input that never comes could not be ended.
  if (signal) addAbortSignal(signal, stream);
  try {
    return await parseTrace(stream);
  } catch (error) {
    if (signal?.aborted) throw errors.aborted(signal.reason);
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof MooncakeError || code === undefined) throw error;
    throw errors.invalidArgument('FILE', path, `a readable trace (${code})`);
  }
}

/** The request of one line, which the builder checks, or undefined for a blank line. */
function parseLine(bytes: Uint8Array, line: number, decoder: TextDecoder): TraceRequest | undefined {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw errors.trace(line, 'not UTF-8 text');
  }
  if (text.trim() === '') return undefined;
  try {
    return JSON.parse(text) as TraceRequest;
  } catch (error) {
    throw errors.trace(line, `not JSON (${(error as Error).message}): ${show(text.trim())}`, text);
  }
}
