/** What records are made of: little-endian numbers, varints (seven bits a byte, lowest first) and runs of bytes. */
import { errors } from '../../core/errors.js';

const LEAST = 64 * 1024;

/** Bytes that are written one after the other, in a buffer that grows. */
export class ByteWriter {
  length = 0;
  #bytes: Buffer;

  constructor(room = LEAST) {
    this.#bytes = Buffer.allocUnsafe(room);
  }

  /** What was written from `from` on: a view that the next `clear` ends. */
  view(from = 0): Buffer {
    return this.#bytes.subarray(from, this.length);
  }

  clear(): void {
    this.length = 0;
  }

  /** Room for so many bytes more. */
  reserve(more: number): void {
    const need = this.length + more;
    if (need <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(need, 2 * this.#bytes.length));
    this.#bytes.copy(grown, 0, 0, this.length);
    this.#bytes = grown;
  }

  u8(value: number): void {
    this.reserve(1);
    this.#bytes[this.length++] = value;
  }

  u32(value: number): void {
    this.reserve(4);
    this.length = this.#bytes.writeUInt32LE(value, this.length);
  }

  u64(value: bigint): void {
    this.reserve(8);
    this.length = this.#bytes.writeBigUInt64LE(value, this.length);
  }

  f64(value: number): void {
    this.reserve(8);
    this.length = this.#bytes.writeDoubleLE(value, this.length);
  }

  /** A whole number from 0 to 2^53 - 1. */
  varint(value: number): void {
    this.reserve(8);
    let rest = value;
    while (rest > 0x7f) {
      this.#bytes[this.length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.length++] = rest;
  }

  bytes(value: Uint8Array): void {
    this.reserve(value.length);
    this.#bytes.set(value, this.length);
    this.length += value.length;
  }

  text(value: string): void {
    const bytes = Buffer.from(value);
    this.varint(bytes.length);
    this.bytes(bytes);
  }
}

/** Reads what a ByteWriter wrote. What ends too early throws ERR_PROTOCOL. */
export class ByteReader {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  #take(count: number): number {
    const from = this.at;
    if (count > this.#bytes.length - from) throw errors.protocol('a record ends early', count);
    this.at = from + count;
    return from;
  }

  u8(): number {
    return this.#bytes[this.#take(1)];
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#take(8));
  }

  f64(): number {
    return this.#bytes.readDoubleLE(this.#take(8));
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) break;
    }
    if (!Number.isSafeInteger(value)) throw errors.protocol('a number is too large', value);
    return value;
  }

  /** A view. */
  bytes(count: number): Buffer {
    const from = this.#take(count);
    return this.#bytes.subarray(from, from + count);
  }

  text(): string {
    return this.bytes(this.varint()).toString();
  }
}
