/**
 * struct_pack values (yalantinglibs), as Mooncake's RPC carries them: 4 bytes that say the type, perhaps a byte about the
 * encoding and the type written out, then the payload without names, padding or varints.
 *
 *   head u32      first 4 bytes of MD5(type literal), big-endian, lowest bit cleared; 1 in it: a metainfo byte follows
 *   metainfo u8   bits 0-1: width of compatible fields (0 here); bit 2: the type literal follows, ended by 0;
 *                 bits 3-4: width of every container's length in this message: 1, 2, 4 or 8 bytes
 *   payload       fields in order, little-endian
 *
 * A schema (types.ts) knows its literal, and how to measure, write and read its values; what a peer sends is compared by
 * head, so two ends that disagree on a shape find out before a byte is misread. Format: yalantinglibs' struct_pack and
 * messages of the stock binaries.
 */
import { createHash } from 'node:crypto';
import { errors } from '../core/errors.js';
import { u32At } from './frames.js';
import { type Measure, Reader, type Shape, type Type, Writer } from './types.js';

const LITERAL = 4;
const WIDTH_SHIFT = 3;
/** Longest type literal that is read over; those of Mooncake are below 200 bytes. */
const MAX_LITERAL = 4096;

const heads = new WeakMap<Shape, number>();

/** The type's code: what a message of it begins with, lowest bit cleared. */
export function typeCode(type: Shape): number {
  let head = heads.get(type);
  if (head === undefined) {
    head = (createHash('md5').update(type.literal).digest().readUInt32BE(0) & ~1) >>> 0;
    heads.set(type, head);
  }
  return head;
}

function widthFor(largest: number): 0 | 1 | 2 {
  if (largest < 256) return 0;
  return largest < 65536 ? 1 : 2;
}

/** What a message takes. */
export interface Size {
  readonly bytes: number;
  /** Of lengths in it: 0, 1, 2 for 1, 2, 4 bytes. */
  readonly width: 0 | 1 | 2;
}

const measured: Measure = { bytes: 0, lengths: 0, largest: 0 };

/** `value` must be what the schema says (checked by the compiler alone). */
export function sizeOf<T>(type: Type<T>, value: T): Size {
  measured.bytes = measured.lengths = measured.largest = 0;
  type.measure(value, measured);
  const width = widthFor(measured.largest);
  return { bytes: 4 + (width ? 1 : 0) + measured.bytes + (measured.lengths << width), width };
}

/** Writes the message whose size was asked for, where the writer stands. */
export function packInto<T>(writer: Writer, type: Type<T>, value: T, { width }: Size): void {
  const head = typeCode(type);
  writer.u32(width ? (head | 1) >>> 0 : head);
  if (width) writer.bytes[writer.at++] = width << WIDTH_SHIFT;
  writer.width = width;
  type.write(value, writer);
}

/** Bytes of a message, behind so many that are left to the caller. */
export function pack<T>(type: Type<T>, value: T, before = 0): Buffer {
  const size = sizeOf(type, value);
  const out = Buffer.allocUnsafe(before + size.bytes);
  packInto(new Writer(out, before, size.width), type, value, size);
  return out;
}

export interface Header {
  /** The type's code. */
  code: number;
  /** Where the payload begins. */
  offset: number;
  /** 0, 1, 2, 3: container lengths of 1, 2, 4, 8 bytes. */
  width: number;
  /** The sender's type literal, where it sent one. */
  literal?: Uint8Array;
}

/** What a message says of itself. Throws ERR_PROTOCOL. */
export function readHeader(message: Uint8Array): Header {
  if (message.length < 4) throw errors.protocol('a value of less than 4 bytes', message);
  const head = u32At(message, 0);
  const code = (head & ~1) >>> 0;
  if ((head & 1) === 0) return { code, offset: 4, width: 0 };
  const metainfo = message[4];
  if (metainfo === undefined) throw errors.protocol('a value that ends before its metainfo byte', message);
  // Bits 0-1 announce compatible fields, which no type of Mooncake has; bits 5-7 mean nothing yet.
  if ((metainfo & 0xe3) !== 0) throw errors.protocol('metainfo of an encoding that is not known', metainfo);
  const width = metainfo >> WIDTH_SHIFT;
  if ((metainfo & LITERAL) === 0) return { code, offset: 5, width };
  const end = message.subarray(0, 5 + MAX_LITERAL).indexOf(0, 5);
  if (end < 0) throw errors.protocol('a type literal without its end', message);
  return { code, offset: end + 1, width, literal: message.subarray(5, end) };
}

/** The value of a message of that type. Throws ERR_PROTOCOL: another type, lengths that lie, bytes left over. */
export function unpack<T>(type: Type<T>, message: Uint8Array): T {
  const header = readHeader(message);
  const expected = typeCode(type);
  if (header.code !== expected) {
    throw errors.protocol(`a value of type ${hex(header.code)} where ${hex(expected)} is due`, header.code);
  }
  return readPayload(type, message, header);
}

/** As `unpack`, for a message whose header has been read and whose type is known to fit. */
export function readPayload<T>(type: Type<T>, message: Uint8Array, header: Header): T {
  const reader = new Reader(message, header.offset, header.width);
  const value = type.read(reader);
  if (reader.left > 0) throw errors.protocol(`${reader.left} bytes after the value`, message);
  return value;
}

function hex(code: number): string {
  return code.toString(16).padStart(8, '0');
}
