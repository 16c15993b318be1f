/**
 * Transfer descriptors: the one language between whoever knows geometry (layout, allocator, store) and whoever moves
 * bytes (the transports). Fixed-size records in one Uint8Array behind a header of a record's size, so that the array
 * can cross to a worker, a socket or native code and still say what it is.
 *
 *   header: magic u32 "KVTD", version u16 = 1, record size u16 = 32, count u64, 16 zero bytes
 *   record: source segment u32, destination segment u32, source offset u64, destination offset u64, length u64
 *
 * All little-endian. Offsets are relative to the segment's base; only transports know addresses.
 */
import { bytes, integer } from './check.js';
import { errors } from './errors.js';

export const DESCRIPTORS_VERSION = 1;
/** Bytes of one record, and of the header. */
export const DESCRIPTOR_BYTES = 32;
// "KVTD" read as a little-endian u32.
const MAGIC = 0x4454564b;

/** One contiguous copy, as an object: for tests and tools, never for a hot path. Offsets and length in bytes. */
export interface Descriptor {
  sourceSegment: number;
  destinationSegment: number;
  sourceOffset: number;
  destinationOffset: number;
  length: number;
}

export class Descriptors implements Iterable<Descriptor> {
  readonly version = DESCRIPTORS_VERSION;
  /** Number of records. */
  readonly count: number;
  /** Header and records. */
  readonly bytes: Uint8Array;

  /** Reads descriptors from bytes of any origin. Throws ERR_INVALID_ARGUMENT when they are not descriptors. */
  constructor(source: Uint8Array | ArrayBuffer) {
    const data = bytes('descriptors', source);
    if (data.byteLength < DESCRIPTOR_BYTES) {
      throw errors.invalidArgument('descriptors', data, `at least ${DESCRIPTOR_BYTES} bytes long`);
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const magic = view.getUint32(0, true);
    if (magic !== MAGIC) throw errors.invalidArgument('descriptors.magic', magic, `${MAGIC} ("KVTD")`);
    const version = view.getUint16(4, true);
    if (version !== DESCRIPTORS_VERSION) {
      throw errors.invalidArgument('descriptors.version', version, `${DESCRIPTORS_VERSION}`);
    }
    const size = view.getUint16(6, true);
    if (size !== DESCRIPTOR_BYTES) throw errors.invalidArgument('descriptors.recordSize', size, `${DESCRIPTOR_BYTES}`);
    this.count = Number(view.getBigUint64(8, true));
    if (DESCRIPTOR_BYTES * (this.count + 1) !== data.byteLength) {
      throw errors.invalidArgument('descriptors.count', this.count, `that of ${data.byteLength} bytes`);
    }
    this.bytes = data;
  }

  /** The records alone. */
  get records(): Uint8Array {
    return this.bytes.subarray(DESCRIPTOR_BYTES);
  }

  /** Sum of all lengths. */
  get totalBytes(): number {
    const view = this.#view();
    let total = 0;
    for (let at = DESCRIPTOR_BYTES; at < view.byteLength; at += DESCRIPTOR_BYTES) total += u64(view, at + 24);
    return total;
  }

  /** The record at `index`. */
  at(index: number): Descriptor {
    return read(this.#view(), integer('index', index, 0, this.count - 1));
  }

  *[Symbol.iterator](): Iterator<Descriptor> {
    const view = this.#view();
    for (let index = 0; index < this.count; index++) yield read(view, index);
  }

  #view(): DataView {
    return new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }
}

/** A header for `count` records, and room for them. Throws ERR_OUT_OF_MEMORY where the array cannot be had. */
export function allocateDescriptors(count: number): Uint8Array {
  const size = DESCRIPTOR_BYTES * (count + 1);
  let data: Uint8Array;
  try {
    data = new Uint8Array(size);
  } catch {
    throw errors.outOfMemory('descriptors', size);
  }
  const view = new DataView(data.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, DESCRIPTORS_VERSION, true);
  view.setUint16(6, DESCRIPTOR_BYTES, true);
  view.setBigUint64(8, BigInt(count), true);
  return data;
}

/** All records, in the order of `parts`. */
export function joinDescriptors(parts: readonly Descriptors[]): Descriptors {
  if (parts.length === 1) return parts[0];
  const joined = allocateDescriptors(parts.reduce((sum, { count }) => sum + count, 0));
  let at = DESCRIPTOR_BYTES;
  for (const { records } of parts) {
    joined.set(records, at);
    at += records.length;
  }
  return new Descriptors(joined);
}

function u64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}

function read(view: DataView, index: number): Descriptor {
  const at = DESCRIPTOR_BYTES * (index + 1);
  return {
    sourceSegment: view.getUint32(at, true),
    destinationSegment: view.getUint32(at + 4, true),
    sourceOffset: u64(view, at + 8),
    destinationOffset: u64(view, at + 16),
    length: u64(view, at + 24),
  };
}
