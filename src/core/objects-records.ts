/**
 * What an object table keeps of each object beside its key: read and written by id, straight in the shard's memory. All
 * fields are 0 when an object is made. Times are milliseconds of whatever clock the caller uses, as Date.now() gives
 * them. Every access checks its id: ERR_INVALID_ARGUMENT where the object is gone or never was.
 */
import { integer } from './check.js';
import { errors } from './errors.js';
import { type ObjectShard, shardOf } from './objects-shard.js';

/** An object whose put has not ended is processing; only a complete one is found by lookups. */
export type ObjectState = 'processing' | 'complete';

// The record (assembly/objects/records.ts), as indices of elements within its 128 bytes.
const U8_STATE = 2;
const U8_FLAGS = 3;
const U8_LIST = 4;
const U32_GROUP = 3;
const F64_LOOKUP_UNTIL = 2;
const F64_LEASE_UNTIL = 3;
const F64_STAMP = 9;
const F64_SIZE = 10;
const U64_CHECKSUM = 11;
const F64_PIN_UNTIL = 12;
const F64_HANDLE = 14;
const U32_DISK = 26;
const U32_OWNER = 30;
const U32_EXTRA = 31;

const MAX_U32 = 0xffff_ffff;

function time(argument: string, value: number): number {
  if (typeof value !== 'number' || Number.isNaN(value)) throw errors.invalidArgument(argument, value, 'a number');
  return value;
}

export abstract class ObjectRecords {
  protected readonly shards: ObjectShard[] = [];
  // Where the last id that was checked lies.
  #shard!: ObjectShard;
  #cell = 0;

  /** Whether this is the id of an object that is there: false once it was removed, also where its record serves another. */
  has(id: number): boolean {
    if (!Number.isSafeInteger(id) || id <= 0) return false;
    const number = shardOf(id);
    if (number >= this.shards.length) return false;
    this.#shard = this.shards[number];
    this.#cell = this.#shard.cellOf(id);
    return this.#cell !== 0;
  }

  protected shard(id: number): ObjectShard {
    if (!this.has(id)) throw errors.invalidArgument('id', id, 'the id of an object that is in the table');
    return this.#shard;
  }

  /** Cell of the object that `shard` was asked for last. */
  protected get cell(): number {
    return this.#cell;
  }

  #u8(id: number, field: number): number {
    return this.shard(id).u8[this.#cell * 128 + field];
  }

  #setU8(id: number, field: number, value: number): void {
    this.shard(id).u8[this.#cell * 128 + field] = value;
  }

  #u32(id: number, field: number): number {
    return this.shard(id).u32[this.#cell * 32 + field];
  }

  #setU32(id: number, field: number, value: number): void {
    this.shard(id).u32[this.#cell * 32 + field] = value;
  }

  #f64(id: number, field: number): number {
    return this.shard(id).f64[this.#cell * 16 + field];
  }

  #setF64(id: number, field: number, value: number): void {
    this.shard(id).f64[this.#cell * 16 + field] = value;
  }

  state(id: number): ObjectState {
    return this.#u8(id, U8_STATE) === 1 ? 'complete' : 'processing';
  }

  setState(id: number, state: ObjectState): void {
    if (state !== 'complete' && state !== 'processing') {
      throw errors.invalidArgument('state', state, "'processing' or 'complete'");
    }
    this.#setU8(id, U8_STATE, state === 'complete' ? 1 : 0);
  }

  /** Eight bits of the caller's. */
  flags(id: number): number {
    return this.#u8(id, U8_FLAGS);
  }

  setFlags(id: number, flags: number): void {
    this.#setU8(id, U8_FLAGS, integer('flags', flags, 0, 255));
  }

  /** Bytes of the object. */
  size(id: number): number {
    return this.#f64(id, F64_SIZE);
  }

  setSize(id: number, size: number): void {
    this.#setF64(id, F64_SIZE, integer('size', size, 0, Number.MAX_SAFE_INTEGER));
  }

  /** CRC-64 of the object's bytes; whether it has one is for a flag to say. */
  checksum(id: number): bigint {
    return this.shard(id).u64[this.#cell * 16 + U64_CHECKSUM];
  }

  setChecksum(id: number, checksum: bigint): void {
    if (typeof checksum !== 'bigint' || checksum < 0n || checksum >= 1n << 64n) {
      throw errors.invalidArgument('checksum', checksum, 'a bigint of 64 bits');
    }
    this.shard(id).u64[this.#cell * 16 + U64_CHECKSUM] = checksum;
  }

  /** Protected by reads until then. */
  leaseUntil(id: number): number {
    return this.#f64(id, F64_LEASE_UNTIL);
  }

  setLeaseUntil(id: number, until: number): void {
    this.#setF64(id, F64_LEASE_UNTIL, time('until', until));
  }

  /** Protected by lookups until then. */
  lookupUntil(id: number): number {
    return this.#f64(id, F64_LOOKUP_UNTIL);
  }

  setLookupUntil(id: number, until: number): void {
    this.#setF64(id, F64_LOOKUP_UNTIL, time('until', until));
  }

  /** Softly pinned until then. */
  pinUntil(id: number): number {
    return this.#f64(id, F64_PIN_UNTIL);
  }

  setPinUntil(id: number, until: number): void {
    this.#setF64(id, F64_PIN_UNTIL, time('until', until));
  }

  /** The caller's number of the disk that has a copy of it; 0 for none. */
  disk(id: number): number {
    return this.#u32(id, U32_DISK);
  }

  setDisk(id: number, disk: number): void {
    this.#setU32(id, U32_DISK, integer('disk', disk, 0, MAX_U32));
  }

  /** Handle of the first replica's allocation (AllocatorSet). */
  handle(id: number): number {
    return this.#f64(id, F64_HANDLE);
  }

  setHandle(id: number, handle: number): void {
    this.#setF64(id, F64_HANDLE, integer('handle', handle, 0, Number.MAX_SAFE_INTEGER));
  }

  /** The caller's number of the client that put it. */
  owner(id: number): number {
    return this.#u32(id, U32_OWNER);
  }

  setOwner(id: number, owner: number): void {
    this.#setU32(id, U32_OWNER, integer('owner', owner, 0, MAX_U32));
  }

  /** A number of the caller's: where it keeps what does not fit here; 0 for nowhere. */
  extra(id: number): number {
    return this.#u32(id, U32_EXTRA);
  }

  setExtra(id: number, extra: number): void {
    this.#setU32(id, U32_EXTRA, integer('extra', extra, 0, MAX_U32));
  }

  /** The caller's number of the group it belongs to; 0 for none. */
  group(id: number): number {
    return this.#u32(id, U32_GROUP);
  }

  setGroup(id: number, group: number): void {
    this.#setU32(id, U32_GROUP, integer('group', group, 0, MAX_U32));
  }

  /** Number of the recency list that it is in, or -1. */
  list(id: number): number {
    return this.#u8(id, U8_LIST) - 1;
  }

  /**
   * Rises with every link and use in the table: of two objects, the one with the lower was used earlier. An object that
   * is taken out of its list keeps it.
   */
  stamp(id: number): number {
    return this.#f64(id, F64_STAMP);
  }

  protected stampOf(shard: ObjectShard, cell: number): number {
    return shard.f64[cell * 16 + F64_STAMP];
  }
}
