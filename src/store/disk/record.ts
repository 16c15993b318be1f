/**
 * The records of a bucket file, little-endian. Every record begins at a page, so that direct I/O can write it; a value that
 * does not fit into the first page begins at a page too, so that direct I/O can read it where it is to go.
 *
 *   bucket   "MTDB" u32 · version u16 · 2 bytes 0 · id u64 · length of the file u64 · CRC-64 of these 24 bytes
 *   record   "MTDR" u32 · version u16 · bytes of the key u16 · bytes of the value u64 · id of the bucket u64 ·
 *            CRC-64 of the value · CRC-64 of these 32 bytes and the key · removed u8 · 23 bytes 0 · key · value
 *
 * The id is random: what an earlier file left on the device is never taken for a record. Whether a record was removed is
 * outside of its sum, so that it can be marked by writing that page again.
 */
import { crc64 } from '../../core/checksum.js';

export const PAGE = 4096;
/** Bytes of a record before its key. */
const HEAD = 64;
const SUMMED = 32;
const VERSION = 1;
// "MTDB" and "MTDR" read as little-endian u32.
const BUCKET = 0x4244_544d;
const RECORD = 0x5244_544d;
const REMOVED = 40;
/** What the head of a record, key included, may take. */
export const MAX_HEAD_BYTES = pages(HEAD + 65_535);

export interface RecordHead {
  readonly key: Uint8Array;
  /** Bytes of the value, and where it begins in the record. */
  readonly size: number;
  readonly valueAt: number;
  /** Bytes of the whole record. */
  readonly length: number;
  /** CRC-64 of the value. */
  readonly checksum: bigint;
  readonly removed: boolean;
}

/** Up to the next page. */
export function pages(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE;
}

/** Where a value begins in its record. */
export function valueOffset(keyBytes: number, size: number): number {
  const behindKey = Math.ceil((HEAD + keyBytes) / HEAD) * HEAD;
  return behindKey + size <= PAGE ? behindKey : pages(behindKey);
}

/** Bytes that a record takes. */
export function recordLength(keyBytes: number, size: number): number {
  return pages(valueOffset(keyBytes, size) + size);
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The first page of a bucket. */
export function bucketHead(id: bigint, length: number): Uint8Array {
  const page = new Uint8Array(PAGE);
  const view = viewOf(page);
  view.setUint32(0, BUCKET, true);
  view.setUint16(4, VERSION, true);
  view.setBigUint64(8, id, true);
  view.setBigUint64(16, BigInt(length), true);
  view.setBigUint64(24, crc64(page.subarray(0, 24)), true);
  return page;
}

/** The id of the bucket whose first page this is, of a file that may have been cut to `length`; undefined where it is none. */
export function readBucketHead(page: Uint8Array, length: number): bigint | undefined {
  const view = viewOf(page);
  const whole =
    view.getUint32(0, true) === BUCKET &&
    view.getUint16(4, true) === VERSION &&
    view.getBigUint64(16, true) >= BigInt(length) &&
    view.getBigUint64(24, true) === crc64(page.subarray(0, 24));
  return whole ? view.getBigUint64(8, true) : undefined;
}

/** What stands before the value of a record, as long as `valueOffset` says. */
export function recordHead(bucket: bigint, key: Uint8Array, size: number, checksum: bigint): Uint8Array {
  const head = new Uint8Array(valueOffset(key.length, size));
  const view = viewOf(head);
  view.setUint32(0, RECORD, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, key.length, true);
  view.setBigUint64(8, BigInt(size), true);
  view.setBigUint64(16, bucket, true);
  view.setBigUint64(24, checksum, true);
  view.setBigUint64(32, crc64(key, crc64(head.subarray(0, SUMMED))), true);
  head.set(key, HEAD);
  return head;
}

/** The record of this bucket that begins with `bytes`; undefined where none does, or not all of its head is there. */
export function readRecordHead(bucket: bigint, bytes: Uint8Array): RecordHead | undefined {
  if (bytes.length < PAGE) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== RECORD || view.getUint16(4, true) !== VERSION) return undefined;
  const keyBytes = view.getUint16(6, true);
  if (view.getBigUint64(16, true) !== bucket || keyBytes === 0 || HEAD + keyBytes > bytes.length) return undefined;
  const key = bytes.slice(HEAD, HEAD + keyBytes);
  if (view.getBigUint64(32, true) !== crc64(key, crc64(bytes.subarray(0, SUMMED)))) return undefined;
  const size = Number(view.getBigUint64(8, true));
  return {
    key,
    size,
    valueAt: valueOffset(keyBytes, size),
    length: recordLength(keyBytes, size),
    checksum: view.getBigUint64(24, true),
    removed: bytes[REMOVED] !== 0,
  };
}

/** Marks the record whose first page this is as removed. */
export function markRemoved(page: Uint8Array): void {
  page[REMOVED] = 1;
}
