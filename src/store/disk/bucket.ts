/**
 * A bucket: a file of fixed length in which records follow one another. One bucket is open and takes new records; the others
 * are sealed, which their names say, and only lose some until they are deleted as a whole.
 */
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { crc64 } from '../../core/checksum.js';
import { addon } from '../native-memory.js';
import {
  bucketHead,
  MAX_HEAD_BYTES,
  markRemoved,
  PAGE,
  type RecordHead,
  readBucketHead,
  readRecordHead,
} from './record.js';
import { type FileEngine, SLOT, type Slots } from './slots.js';

const NAME = /^([0-9a-f]{12})\.(open|sealed)$/;
/** Below this, records are read in windows of many. */
const SMALL_RECORD = 2 ** 16;

/** CRC-64 of bytes, continued from `crc`. */
export const sum = addon
  ? (bytes: Uint8Array, crc: bigint): bigint => addon!.crc64(bytes, crc)
  : (bytes: Uint8Array, crc: bigint): bigint => crc64(bytes, crc);

export interface BucketName {
  readonly sequence: number;
  readonly open: boolean;
}

/** What a file name in the folder says; undefined for files of others. */
export function parseFileName(name: string): BucketName | undefined {
  const match = NAME.exec(name);
  return match ? { sequence: Number.parseInt(match[1], 16), open: match[2] === 'open' } : undefined;
}

export class Bucket {
  readonly sequence: number;
  readonly id: bigint;
  /** Bytes of the file. */
  readonly length: number;
  /** The engine's number of the file. */
  readonly file: number;
  /** Where the next record goes. */
  tail = PAGE;
  /** Keys whose records here are the current ones. */
  readonly keys = new Set<string>();
  /** Order of the last read of any of them. */
  lastRead = 0;
  #path: string;
  readonly #folder: string;
  readonly #engine: FileEngine;
  readonly #staging: Slots;

  private constructor(
    context: BucketContext,
    sequence: number,
    path: string,
    file: number,
    length: number,
    id: bigint,
  ) {
    this.#folder = context.folder;
    this.#engine = context.engine;
    this.#staging = context.staging;
    this.sequence = sequence;
    this.#path = path;
    this.file = file;
    this.length = length;
    this.id = id;
  }

  /** A new, open one. Throws what the engine throws where there is no space for it; nothing is left then. */
  static async create(context: BucketContext, sequence: number, length: number): Promise<Bucket> {
    const path = pathOf(context.folder, sequence, true);
    const [low, high] = crypto.getRandomValues(new Uint32Array(2));
    const id = (BigInt(high) << 32n) | BigInt(low);
    try {
      const file = await context.engine.openFile(path, { length });
      const bucket = new Bucket(context, sequence, path, file.id, length, id);
      try {
        await bucket.#writePage(0, (page) => page.set(bucketHead(id, length)));
        return bucket;
      } catch (error) {
        await bucket.close();
        throw error;
      }
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  }

  /** One that is there; undefined where the file is none. */
  static async open(context: BucketContext, { sequence, open }: BucketName): Promise<Bucket | undefined> {
    const path = pathOf(context.folder, sequence, open);
    const { id: file, length } = await context.engine.openFile(path).catch(() => ({ id: -1, length: 0 }));
    if (file < 0) return undefined;
    const { staging } = context;
    const id = await staging
      .use(async (slot) => {
        if (length < PAGE) return undefined;
        await staging.read(file, 0, slot, PAGE);
        return readBucketHead(slot.bytes.subarray(0, PAGE), length);
      })
      .catch(() => undefined);
    if (id !== undefined) return new Bucket(context, sequence, path, file, length, id);
    await context.engine.unregister(file);
    return undefined;
  }

  /**
   * Calls `found` for each record, with where it begins, and sets the tail behind the last. `whole`: also looks at the
   * values, and ends at the first that is not what was written: that is where a process was killed.
   */
  async scan(whole: boolean, found: (record: RecordHead, at: number) => void): Promise<void> {
    await this.#staging.use(async (slot) => {
      let [from, until] = [0, 0];
      let last = SMALL_RECORD;
      for (let at = PAGE; at + PAGE <= this.length; ) {
        const needed = Math.min(MAX_HEAD_BYTES, this.length - at);
        if (at < from || at + needed > until) {
          const length = Math.min(last < SMALL_RECORD ? SLOT : needed, this.length - at);
          await this.#staging.read(this.file, at, slot, length);
          [from, until] = [at, at + length];
        }
        const record = readRecordHead(this.id, slot.bytes.subarray(at - from, until - from));
        if (!record || at + record.length > this.length) break;
        if (whole && (await this.checksum(at + record.valueAt, record.size)) !== record.checksum) break;
        found(record, at);
        last = record.length;
        at += record.length;
        this.tail = at;
      }
    });
  }

  /** CRC-64 of bytes of the file. */
  async checksum(at: number, length: number): Promise<bigint> {
    let crc = 0n;
    await this.read(at, length, (piece) => {
      crc = sum(piece, crc);
    });
    return crc;
  }

  /** Hands out bytes of the file, in order, in pieces that are valid until `take` returns. */
  async read(at: number, length: number, take: (piece: Uint8Array, from: number) => void): Promise<void> {
    await this.#staging.use(async (slot) => {
      for (let done = 0; done < length; ) {
        const piece = Math.min(SLOT, length - done);
        await this.#staging.read(this.file, at + done, slot, piece);
        take(slot.bytes.subarray(0, piece), done);
        done += piece;
      }
    });
  }

  /** Marks the record that begins at `at` as removed. */
  async markRemoved(at: number): Promise<void> {
    await this.#writePage(at, markRemoved, true);
  }

  /** Takes no more records from now on. */
  async seal(): Promise<void> {
    const sealed = pathOf(this.#folder, this.sequence, false);
    if (sealed === this.#path) return;
    await rename(this.#path, sealed);
    this.#path = sealed;
  }

  /** Deletes the file; its space is free when nobody reads it any more. */
  async delete(): Promise<void> {
    await rm(this.#path, { force: true });
    await this.close();
  }

  /** Resolves when nothing touches the file. */
  close(): Promise<void> {
    return this.#engine.unregister(this.file);
  }

  async #writePage(at: number, change: (page: Uint8Array) => void, keep = false): Promise<void> {
    await this.#staging.use(async (slot) => {
      const page = slot.bytes.subarray(0, PAGE);
      if (keep) await this.#staging.read(this.file, at, slot, PAGE);
      change(page);
      await this.#staging.write(slot, PAGE, this.file, at);
    });
  }
}

export interface BucketContext {
  readonly folder: string;
  readonly engine: FileEngine;
  readonly staging: Slots;
}

export function pathOf(folder: string, sequence: number, open: boolean): string {
  return join(folder, `${sequence.toString(16).padStart(12, '0')}.${open ? 'open' : 'sealed'}`);
}
