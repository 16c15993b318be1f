/**
 * Frames of coro_rpc: 20 bytes of header and a body before a request, 16 and a body before an answer. No preamble, no
 * negotiation; the attachment that the header provides for is never used by Mooncake and is read over.
 *
 *   request   magic u8 = 0x15, version u8 = 0, encoding u8 = 0 (struct_pack), type u8, sequence u32, function u32,
 *             body length u32, attachment length u32
 *   answer    magic u8 = 0x15, version u8 = 0, error u8, type u8, sequence u32, body length u32, attachment length u32
 *
 * Source: coro_rpc's protocol header and the stock binaries.
 */
import { errors } from '../core/errors.js';
import type { Writer } from './types.js';

export const MAGIC = 0x15;
export const REQUEST_BYTES = 20;
export const ANSWER_BYTES = 16;

/** Errors of the protocol itself; the body of such an answer is a string. */
export const RPC_ERROR = {
  ok: 0,
  io: 1,
  notConnected: 2,
  timedOut: 3,
  invalidArguments: 4,
  cancelled: 9,
  exception: 10,
  notRegistered: 11,
  protocol: 12,
  version: 13,
  tooLarge: 14,
} as const;

/** Room that is made for a frame when its first bytes come, if it is as large. */
const FIRST_BYTES = 64 * 1024;

export interface Frame {
  sequence: number;
  /** The function's id in a request, the error in an answer. */
  word: number;
  /** A view of what was received; nobody else writes it. */
  body: Uint8Array;
}

/** Writes the header of a request to the first REQUEST_BYTES; what follows them is its body. */
export function writeRequestHeader(out: Buffer, sequence: number, id: number): void {
  out.fill(0, 0, REQUEST_BYTES);
  out[0] = MAGIC;
  out.writeUInt32LE(sequence, 4);
  out.writeUInt32LE(id, 8);
  out.writeUInt32LE(out.length - REQUEST_BYTES, 12);
}

/** Writes the header of an answer, 16 bytes. */
export function writeAnswerHeader(writer: Writer, sequence: number, error: number, bodyBytes: number): void {
  writer.u32(MAGIC | (error << 16));
  writer.u32(sequence);
  writer.u32(bodyBytes);
  writer.u32(0);
}

/** The little-endian u32 that begins there. A DataView for a header or two would cost more than they. */
export function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

/** Takes one direction of a connection apart, however its bytes are cut. */
export class FrameReader {
  readonly #request: boolean;
  readonly #headerBytes: number;
  readonly #maxBytes: number;
  readonly #sink: (frame: Frame) => void;
  /** What has come of a frame that is not whole yet: `#filled` bytes of `#partial`, which goes with the frame. */
  #partial: Uint8Array = new Uint8Array(0);
  #filled = 0;

  /** `maxBytes`: longest body and attachment. `sink` is called once per frame, in order. */
  constructor(direction: 'request' | 'answer', maxBytes: number, sink: (frame: Frame) => void) {
    this.#request = direction === 'request';
    this.#headerBytes = this.#request ? REQUEST_BYTES : ANSWER_BYTES;
    this.#maxBytes = maxBytes;
    this.#sink = sink;
  }

  /** Throws ERR_PROTOCOL for what is no frame: the connection is of no use then. */
  push(chunk: Uint8Array): void {
    let at = 0;
    if (this.#filled > 0) {
      at = this.#gather(chunk);
      if (this.#filled > 0) return;
    }
    while (at < chunk.length) {
      const size = this.#size(chunk, at);
      if (size === undefined || at + size > chunk.length) {
        this.#keep(chunk.subarray(at), size ?? this.#headerBytes);
        return;
      }
      this.#take(chunk, at);
      at += size;
    }
  }

  /** Completes the frame that is being gathered; how many bytes of the chunk it took. */
  #gather(chunk: Uint8Array): number {
    let at = 0;
    for (;;) {
      const size = this.#size(this.#partial.subarray(0, this.#filled), 0);
      const wanted = (size ?? this.#headerBytes) - this.#filled;
      if (wanted === 0) {
        const frame = this.#partial;
        this.#filled = 0;
        this.#partial = new Uint8Array(0);
        this.#take(frame, 0);
        return at;
      }
      if (at === chunk.length) return at;
      const piece = chunk.subarray(at, at + wanted);
      this.#keep(piece, this.#filled + wanted);
      at += piece.length;
    }
  }

  /** Room grows with what arrives, not with what a header promises. */
  #keep(bytes: Uint8Array, wanted: number): void {
    const needed = this.#filled + bytes.length;
    if (needed > this.#partial.length) {
      const larger = new Uint8Array(Math.max(needed, Math.min(wanted, Math.max(FIRST_BYTES, 2 * needed))));
      larger.set(this.#partial.subarray(0, this.#filled));
      this.#partial = larger;
    }
    this.#partial.set(bytes, this.#filled);
    this.#filled = needed;
  }

  /** Bytes of the frame that begins there; undefined where its header is not whole. */
  #size(bytes: Uint8Array, at: number): number | undefined {
    if (at < bytes.length && bytes[at] !== MAGIC) throw errors.protocol('a frame with another magic', bytes[at]);
    if (bytes.length - at < this.#headerBytes) return undefined;
    if (bytes[at + 1] !== 0) throw errors.protocol('a frame of another version', bytes[at + 1]);
    if (this.#request && bytes[at + 2] !== 0) throw errors.protocol('a frame of another encoding', bytes[at + 2]);
    const lengths = at + this.#headerBytes - 8;
    const length = u32At(bytes, lengths) + u32At(bytes, lengths + 4);
    if (length > this.#maxBytes) throw errors.protocol(`a frame over ${this.#maxBytes} bytes`, length);
    return this.#headerBytes + length;
  }

  /** Tells of the whole frame that begins at `at`. */
  #take(bytes: Uint8Array, at: number): void {
    const body = at + this.#headerBytes;
    this.#sink({
      sequence: u32At(bytes, at + 4),
      word: this.#request ? u32At(bytes, at + 8) : bytes[at + 2],
      body: bytes.subarray(body, body + u32At(bytes, body - 8)),
    });
  }
}
