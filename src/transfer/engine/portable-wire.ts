/**
 * Mooncake's TCP data stream, as bytes. A request is 24 bytes; version 2 answers with a word of status, version 1 has none.
 *
 *   request  size u64 · address u64 · opcode u8: read 0, write 1, | 0x80 for version 2 · 7 bytes of any value
 *   status   u64: "MCTV" in the upper half, below it 0 (done) or what went wrong
 *
 * All little-endian. Handshakes come in on the same port; `classify` tells them apart, by the rules of the accelerator
 * (native/transport/tcp/stock.h).
 */
import { MAX_REQUEST_BYTES } from '../metadata/handshake.js';

export const REQUEST_BYTES = 24;
export const STATUS_BYTES = 8;
/** That many bytes always tell what a connection is. */
export const OPENING_BYTES = 16;

const STATUS_MAGIC = 0x4d435456;
const WRITE = 1;
const WITH_STATUS = 0x80;
const HIGH = 2 ** 32;
const MAX_SIZE = 2 ** 48;

export interface Request {
  /** Bytes. */
  size: number;
  address: number;
  write: boolean;
  /** Version 2. */
  status: boolean;
}

/** A u64; above 2 ** 53 no longer exact, but no less than any length or address that is known. */
const u64 = (view: DataView, at: number) => view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true);

function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % HIGH, true);
  view.setUint32(at + 4, Math.floor(value / HIGH), true);
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export function requestBytes({ size, address, write, status }: Request): Uint8Array {
  const bytes = new Uint8Array(REQUEST_BYTES);
  const view = viewOf(bytes);
  putU64(view, 0, size);
  putU64(view, 8, address);
  bytes[16] = (write ? WRITE : 0) | (status ? WITH_STATUS : 0);
  return bytes;
}

/** `valid`: the opcode is one, and the size is not 0. */
export function readRequest(bytes: Uint8Array): Request & { valid: boolean } {
  const view = viewOf(bytes);
  const opcode = bytes[16];
  const size = u64(view, 0);
  return {
    size,
    address: u64(view, 8),
    write: (opcode & WRITE) !== 0,
    status: (opcode & WITH_STATUS) !== 0,
    valid: size > 0 && (opcode & ~(WRITE | WITH_STATUS)) === 0,
  };
}

export function statusBytes(done: boolean): Uint8Array {
  const bytes = new Uint8Array(STATUS_BYTES);
  viewOf(bytes).setUint32(0, done ? 0 : 1, true);
  viewOf(bytes).setUint32(4, STATUS_MAGIC, true);
  return bytes;
}

/** 0: done; undefined: no word of status. */
export function readStatus(bytes: Uint8Array): number | undefined {
  const view = viewOf(bytes);
  return view.getUint32(4, true) === STATUS_MAGIC ? view.getUint32(0, true) : undefined;
}

export type Opening = 'more' | 'handshake' | 'data' | 'unknown';

const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/** "{…}", with white space behind it at most. */
function isBraced(text: Uint8Array): boolean {
  let end = text.length;
  while (end > 0 && isSpace(text[end - 1])) end--;
  return end >= 2 && text[0] === 0x7b && text[end - 1] === 0x7d;
}

/**
 * What a connection speaks, by its first bytes. Bytes 14 and 15 are text in a handshake, which has no zeros, and the top of a
 * user-space address in a request, which is zero; a handshake that ends before them is told by its own length and braces.
 */
export function classify(bytes: Uint8Array): Opening {
  if (bytes.length < 8) return 'more';
  const first = u64(viewOf(bytes), 0);
  if (first === 0 || first >= MAX_SIZE) return 'unknown';
  if (bytes.length < OPENING_BYTES) {
    if (first >= 8 || bytes.length !== 8 + first) return 'more';
    return isBraced(bytes.subarray(bytes[8] <= 3 ? 9 : 8)) ? 'handshake' : 'more';
  }
  const [a, b] = [bytes[14], bytes[15]];
  if (a === 0 && b === 0) return 'data';
  return a !== 0 && b !== 0 && first >= 8 && first <= MAX_REQUEST_BYTES ? 'handshake' : 'unknown';
}
