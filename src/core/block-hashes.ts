/**
 * The hashes of a run of blocks, one after another in one buffer: what hashing returns and what the prefix index takes.
 * 32 bytes a block for sha256*, 16 for xxhash*, 8 for Mooncake's sequence hashes and for what KV events publish.
 */
import { integer } from './check.js';
import { errors } from './errors.js';
import { toHex } from './hex.js';

export type HashWidth = 8 | 16 | 32;

export class BlockHashes {
  /** `length * width` bytes, digest after digest. */
  readonly bytes: Uint8Array;
  /** Bytes of one hash. */
  readonly width: HashWidth;
  /** Number of hashes. */
  readonly length: number;

  /** Takes `bytes` as they are, without a copy. */
  constructor(bytes: Uint8Array, width: HashWidth) {
    if (!(bytes instanceof Uint8Array)) throw errors.invalidArgument('bytes', bytes, 'a Uint8Array');
    if (width !== 8 && width !== 16 && width !== 32) throw errors.invalidArgument('width', width, 'one of 8, 16, 32');
    if (bytes.length % width !== 0) {
      throw errors.invalidArgument('bytes', bytes, `a multiple of ${width} bytes long`);
    }
    this.bytes = bytes;
    this.width = width;
    this.length = bytes.length / width;
  }

  /** The bytes of hash `i`, a view. */
  at(i: number): Uint8Array {
    const index = integer('i', i, 0, this.length - 1);
    return this.bytes.subarray(index * this.width, (index + 1) * this.width);
  }

  /** Hash `i` in lower-case hex. */
  hex(i: number): string {
    return toHex(this.at(i));
  }

  /** Every hash in lower-case hex. */
  toHex(): string[] {
    return Array.from({ length: this.length }, (_, i) => this.hex(i));
  }

  /** Hashes `from` (included) to `to` (not included), a view. */
  slice(from = 0, to = this.length): BlockHashes {
    const end = integer('to', to, 0, this.length);
    const start = integer('from', from, 0, end);
    return new BlockHashes(this.bytes.subarray(start * this.width, end * this.width), this.width);
  }

  /**
   * vLLM's keys with a KV-cache group: each hash followed by the group id as a big-endian u32 (make_block_hash_with_group_id),
   * `width + 4` bytes each.
   */
  withGroup(group: number): Uint8Array {
    const id = integer('group', group, 0, 0xffffffff);
    const { bytes, width, length } = this;
    const keys = new Uint8Array(length * (width + 4));
    const view = new DataView(keys.buffer);
    for (let i = 0; i < length; i++) {
      keys.set(bytes.subarray(i * width, (i + 1) * width), i * (width + 4));
      view.setUint32(i * (width + 4) + width, id);
    }
    return keys;
  }

  /** The hashes as vLLM's KV events publish them: the low 64 bits, the last eight bytes read as a big-endian number. */
  events(): BigUint64Array {
    const { bytes, width, length } = this;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const low = new BigUint64Array(length);
    for (let i = 0; i < length; i++) low[i] = view.getBigUint64((i + 1) * width - 8);
    return low;
  }
}
