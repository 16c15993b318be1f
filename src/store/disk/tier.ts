/**
 * Objects in the files of a folder: the tier below memory. Records (record.ts) are written one after the other into
 * buckets of fixed length (bucket.ts), by O_DIRECT where the engine has it; an index in memory says where each key's is.
 * When the capacity is used up, the bucket that was read longest ago goes as a whole.
 *
 *   put ─► staging ─► open bucket ─► sealed buckets        one writer, any number of readers
 *   get ◄─ staging ◄─────── any bucket                     CRC-64 compared with the index
 *
 * After a restart the index is made again from the heads of the records. Nothing is flushed: what a crash of the machine
 * took is a miss, since its sum does not match; a crash of the process takes only what was being written. Of two records of
 * a key the later counts, and the earlier is marked as removed in its file, so that it never comes back.
 */
import { readdir, rm } from 'node:fs/promises';
import type { Server } from 'node:net';
import { options as checkOptions, integer, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import { type Key, Keys } from '../../core/keys.js';
import { makeFolder } from '../../folders.js';
import { TransferEngine } from '../../transfer/engine/engine.js';
import { Bucket, type BucketContext, parseFileName, pathOf, sum } from './bucket.js';
import { lockFolder, unlock } from './lock.js';
import { PAGE, recordLength } from './record.js';
import { type FileEngine, SLOT, Slots } from './slots.js';
import { BucketWriter } from './writer.js';

export interface DiskTierOptions {
  /** Made where it is not there; one process at a time has it. */
  folder: string;
  /** Bytes that its files may take, at least two buckets. */
  capacityBytes: number;
  /** Bytes of a file, the largest object included, from 1 MiB. Default 256 MiB, less where the capacity is small. */
  bucketBytes?: number;
  /** Moves the bytes. Default: one of its own. */
  engine?: FileEngine;
  /** Told which keys went with a bucket that was evicted. */
  onEvicted?: (keys: Uint8Array[]) => void;
}

export interface DiskTierStats {
  objects: number;
  buckets: number;
  /** Bytes of the files, and how many they may be. */
  usedBytes: number;
  capacityBytes: number;
  evictedObjects: number;
  evictedBuckets: number;
  /** Values whose sum did not match: misses. */
  corrupt: number;
  /** Reads and writes that the system refused: misses, and objects that were not put. */
  failures: number;
}

/** An object of the tier. */
export interface DiskEntry {
  readonly bucket: Bucket;
  /** Where its record begins, and its value, in the file. */
  readonly recordAt: number;
  readonly valueAt: number;
  readonly size: number;
  readonly checksum: bigint;
}

const LEAST_BUCKET = SLOT;
const DEFAULT_BUCKET = 256 * 2 ** 20;
/** Copies at a time, each with a slot of staging memory. */
const SLOTS = 16;

const text = (key: Uint8Array) => Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
const bytesOf = (key: string) => new Uint8Array(Buffer.from(key, 'latin1'));

export class DiskTier {
  readonly #context: BucketContext;
  readonly #lock: Server;
  readonly #capacity: number;
  readonly #bucketBytes: number;
  readonly #onEvicted: (keys: Uint8Array[]) => void;
  readonly #ownEngine?: TransferEngine;
  readonly #index = new Map<string, DiskEntry>();
  readonly #buckets = new Set<Bucket>();
  #open?: Bucket;
  #used = 0;
  #sequence = 0;
  #reads = 0;
  /** The end of what writes: one at a time. */
  #writing: Promise<unknown> = Promise.resolve();
  #closed?: Promise<void>;
  readonly #counters = { evictedObjects: 0, evictedBuckets: 0, corrupt: 0, failures: 0 };

  private constructor(
    context: BucketContext,
    lock: Server,
    options: DiskTierOptions,
    bucketBytes: number,
    ownEngine?: TransferEngine,
  ) {
    this.#context = context;
    this.#lock = lock;
    this.#capacity = options.capacityBytes;
    this.#bucketBytes = bucketBytes;
    this.#onEvicted = options.onEvicted ?? (() => {});
    this.#ownEngine = ownEngine;
  }

  /**
   * Opens a folder, with what is in it. Throws ERR_INVALID_ARGUMENT, ERR_BUSY where another process has the folder, and the
   * system's error where it cannot be made or read.
   */
  static async open(options: DiskTierOptions): Promise<DiskTier> {
    const { folder, capacityBytes, bucketBytes, engine } = checkOptions('options', options);
    string('options.folder', folder);
    integer('options.capacityBytes', capacityBytes, 2 * LEAST_BUCKET, Number.MAX_SAFE_INTEGER);
    const most = Math.floor(capacityBytes / 2 / PAGE) * PAGE;
    const length = integer('options.bucketBytes', bucketBytes ?? Math.min(DEFAULT_BUCKET, most), LEAST_BUCKET, most);
    if (length % PAGE !== 0) throw errors.invalidArgument('options.bucketBytes', length, `a multiple of ${PAGE}`);
    makeFolder(folder);
    const lock = await lockFolder(folder);
    let own: TransferEngine | undefined;
    try {
      own = engine ? undefined : await TransferEngine.create({ host: '127.0.0.1' });
      const files = engine ?? own!;
      const staging = await Slots.allocate(files, SLOTS);
      const tier = new DiskTier({ folder, engine: files, staging }, lock, options, length, own);
      await tier.#load();
      return tier;
    } catch (error) {
      await own?.close();
      await unlock(lock);
      throw error;
    }
  }

  /**
   * Writes objects; whether each is there now. What has the key is replaced, and is served until then. False: it is larger
   * than a bucket, or the disk is full or fails. Values must not change until then.
   */
  put(keys: Keys | readonly Key[], values: readonly Uint8Array[]): Promise<boolean[]> {
    const packed = Keys.from(keys);
    if (!Array.isArray(values) || values.length !== packed.length) {
      throw errors.invalidArgument('values', values, `an array of ${packed.length} values, one a key`);
    }
    for (const [i, value] of values.entries()) {
      if (!(value instanceof Uint8Array)) throw errors.invalidArgument(`values[${i}]`, value, 'a Uint8Array');
    }
    return this.#write(() => this.#put(packed, values));
  }

  /**
   * The bytes of objects; undefined for what is not there, or not as it was written. Where `targets` has an array of just the
   * object's size it is filled and given back; one of another size is a miss.
   */
  get(keys: Keys | readonly Key[], targets?: readonly (Uint8Array | undefined)[]): Promise<(Uint8Array | undefined)[]> {
    const packed = Keys.from(keys);
    this.#checkOpen();
    return Promise.all(Array.from({ length: packed.length }, (_, i) => this.#get(text(packed.at(i)), targets?.[i])));
  }

  has(keys: Keys | readonly Key[]): boolean[] {
    const packed = Keys.from(keys);
    return Array.from({ length: packed.length }, (_, i) => this.#index.has(text(packed.at(i))));
  }

  /** Removes objects, also from the files; whether each was there. */
  remove(keys: Keys | readonly Key[]): Promise<boolean[]> {
    const packed = Keys.from(keys);
    return this.#write(async () => {
      const removed: boolean[] = [];
      for (let i = 0; i < packed.length; i++) removed.push(await this.#remove(text(packed.at(i))));
      return removed;
    });
  }

  /** Removes everything, and deletes the files. */
  clear(): Promise<void> {
    return this.#write(async () => {
      for (const bucket of this.#buckets) await this.#delete(bucket);
    });
  }

  /** What is there, in no order: key, bytes, CRC-64 of the value. */
  *entries(): IterableIterator<{ key: Uint8Array; size: number; checksum: bigint }> {
    for (const [key, { size, checksum }] of this.#index) yield { key: bytesOf(key), size, checksum };
  }

  stats(): DiskTierStats {
    return {
      objects: this.#index.size,
      buckets: this.#buckets.size,
      usedBytes: this.#used,
      capacityBytes: this.#capacity,
      ...this.#counters,
    };
  }

  /** Ends what is under way, and gives the folder back. What is in it stays. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    await this.#writing.catch(() => {});
    await this.#open?.seal().catch(() => {});
    for (const bucket of this.#buckets) await bucket.close();
    await this.#context.staging.release();
    await this.#ownEngine?.close();
    await unlock(this.#lock);
  }

  #checkOpen(): void {
    if (this.#closed) throw errors.closed('the disk tier');
  }

  /** One writer at a time, in order. */
  #write<T>(run: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    const result = this.#writing.then(run);
    this.#writing = result.catch(() => {});
    return result;
  }

  async #put(keys: Keys, values: readonly Uint8Array[]): Promise<boolean[]> {
    const written = new Array<boolean>(values.length).fill(false);
    const writer = new BucketWriter(this.#context.staging);
    const staged: { i: number; key: string; entry: DiskEntry }[] = [];
    const commit = async () => {
      const isWritten = await writer.flush().then(
        () => true,
        () => this.#failed(),
      );
      for (const { i, key, entry } of staged.splice(0)) {
        written[i] = isWritten;
        if (isWritten) await this.#enter(key, entry);
      }
      // What is behind bytes that may be missing would not be found again.
      if (!isWritten) await this.#seal();
    };
    for (const [i, value] of values.entries()) {
      const key = keys.at(i);
      const length = recordLength(key.length, value.length);
      if (length + PAGE > this.#bucketBytes) continue;
      const checksum = sum(value, 0n);
      const known = this.#index.get(text(key));
      if (known && known.size === value.length && known.checksum === checksum) {
        written[i] = true;
        continue;
      }
      if (this.#open && this.#open.tail + length > this.#open.length) {
        await commit();
        await this.#seal();
      }
      const bucket = this.#open ?? (await this.#newBucket());
      if (!bucket) break;
      staged.push({ i, key: text(key), entry: writer.append(bucket, key, value, checksum) });
      if (writer.size >= SLOT) await commit();
    }
    await commit();
    return written;
  }

  /** A record is whole in its file: it counts from now on. */
  async #enter(key: string, entry: DiskEntry): Promise<void> {
    const earlier = this.#index.get(key);
    this.#index.set(key, entry);
    entry.bucket.keys.add(key);
    entry.bucket.lastRead = ++this.#reads;
    if (earlier) await this.#drop(key, earlier);
  }

  async #get(key: string, target: Uint8Array | undefined): Promise<Uint8Array | undefined> {
    const entry = this.#index.get(key);
    if (!entry || (target && target.length !== entry.size)) return undefined;
    const { bucket, valueAt, size, checksum } = entry;
    bucket.lastRead = ++this.#reads;
    const value = target ?? new Uint8Array(size);
    let crc = 0n;
    try {
      await bucket.read(valueAt, size, (piece, from) => {
        value.set(piece, from);
        crc = sum(value.subarray(from, from + piece.length), crc);
      });
    } catch {
      // A bucket that was evicted meanwhile is no failure.
      if (this.#buckets.has(bucket)) this.#failed();
      return undefined;
    }
    if (crc === checksum) return value;
    this.#counters.corrupt++;
    if (!this.#closed && this.#index.get(key) === entry) this.#write(() => this.#remove(key, entry)).catch(() => {});
    return undefined;
  }

  /** Removes what a key has, or this very record. */
  async #remove(key: string, only?: DiskEntry): Promise<boolean> {
    const entry = this.#index.get(key);
    if (!entry || (only && entry !== only)) return false;
    this.#index.delete(key);
    await this.#drop(key, entry);
    return true;
  }

  /** A record counts no longer: its file says so too, or goes, if that was its last. */
  async #drop(key: string, { bucket, recordAt }: DiskEntry): Promise<void> {
    if (this.#index.get(key)?.bucket !== bucket) bucket.keys.delete(key);
    if (bucket.keys.size === 0 && bucket !== this.#open) await this.#delete(bucket);
    else await bucket.markRemoved(recordAt).catch(() => this.#failed());
  }

  async #seal(): Promise<void> {
    const bucket = this.#open;
    this.#open = undefined;
    if (!bucket) return;
    if (bucket.keys.size === 0) await this.#delete(bucket);
    else await bucket.seal().catch(() => this.#failed());
  }

  /** A bucket for new records; undefined where the disk has no room for one, and nothing can go. */
  async #newBucket(): Promise<Bucket | undefined> {
    while (this.#used + this.#bucketBytes > this.#capacity) if (!(await this.#evict())) return undefined;
    // Others may have filled the disk: one bucket of ours makes room for one.
    const bucket = (await this.#create()) ?? ((await this.#evict()) ? await this.#create() : undefined);
    if (!bucket) return undefined;
    this.#add(bucket);
    this.#open = bucket;
    return bucket;
  }

  #create(): Promise<Bucket | undefined> {
    return Bucket.create(this.#context, ++this.#sequence, this.#bucketBytes).catch(() => void this.#failed());
  }

  #add(bucket: Bucket): void {
    this.#buckets.add(bucket);
    this.#used += bucket.length;
  }

  /** Gives up the sealed bucket that was read longest ago; whether there was one. */
  async #evict(): Promise<boolean> {
    let oldest: Bucket | undefined;
    for (const bucket of this.#buckets) {
      if (bucket !== this.#open && (!oldest || bucket.lastRead < oldest.lastRead)) oldest = bucket;
    }
    if (!oldest) return false;
    const keys = [...oldest.keys].map(bytesOf);
    this.#counters.evictedBuckets++;
    this.#counters.evictedObjects += keys.length;
    await this.#delete(oldest);
    if (keys.length > 0) this.#onEvicted(keys);
    return true;
  }

  async #delete(bucket: Bucket): Promise<void> {
    for (const key of bucket.keys) if (this.#index.get(key)?.bucket === bucket) this.#index.delete(key);
    this.#buckets.delete(bucket);
    this.#used -= bucket.length;
    if (bucket === this.#open) this.#open = undefined;
    await bucket.delete();
  }

  /** What the folder has, oldest first. What is no bucket of ours but has the name of one is deleted. */
  async #load(): Promise<void> {
    const { folder } = this.#context;
    const names = (await readdir(folder)).map(parseFileName).filter((name) => name !== undefined);
    names.sort((a, b) => a.sequence - b.sequence);
    for (const name of names) {
      this.#sequence = Math.max(this.#sequence, name.sequence);
      const bucket = await Bucket.open(this.#context, name);
      if (!bucket) {
        await rm(pathOf(folder, name.sequence, name.open), { force: true });
        continue;
      }
      this.#add(bucket);
      const found: [string, DiskEntry][] = [];
      await bucket.scan(name.open, ({ key, size, valueAt, checksum, removed }, at) => {
        if (!removed) found.push([text(key), { bucket, recordAt: at, valueAt: at + valueAt, size, checksum }]);
      });
      for (const [key, entry] of found) await this.#enter(key, entry);
      if (bucket.keys.size === 0) await this.#delete(bucket);
      else await bucket.seal();
    }
    while (this.#used > this.#capacity && (await this.#evict())) {}
  }

  #failed(): false {
    this.#counters.failures++;
    return false;
  }
}
