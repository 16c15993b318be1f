/** Values in memory of any kind, put and got whole: what the calls for one object and for many are made of. */
import { bytes as checkBytes, integer, options as object } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { Transfer } from '../transfer/transfer.js';
import { Limits } from './batch.js';
import type { StoreContext } from './context.js';
import { Counters } from './counters.js';
import type { ValueMemory } from './far-reads.js';
import { ObjectGets } from './get.js';
import { addon, countLater, keepFreedValues } from './native-memory.js';
import type { GetValueOptions, PutValueOptions } from './options.js';
import { ObjectPuts } from './put.js';
import { ObjectView } from './view.js';

export type Bytes = Uint8Array | ArrayBuffer;

/** Memory that is registered with the store's transfer. Offset and length in bytes. */
export interface SegmentRange {
  readonly segment: number;
  readonly offset: number;
  readonly length: number;
}

/** The memory of a range. @throws ERR_SEGMENT, ERR_INVALID_ARGUMENT */
export function rangeMemory(transfer: Transfer, argument: string, range: SegmentRange): ValueMemory {
  if (range === undefined) throw errors.invalidArgument(argument, range, 'an object');
  const { segment, offset, length } = object(argument, range);
  const memory = transfer.memory(segment);
  integer(`${argument}.offset`, offset, 0, memory.length);
  integer(`${argument}.length`, length, 0, memory.length - offset);
  return { bytes: memory.subarray(offset, offset + length), segment, at: offset };
}

export function checkValue(argument: string, value: unknown): ValueMemory {
  return { bytes: checkBytes(argument, value) };
}

export function checkParts(argument: string, parts: unknown): ValueMemory[] {
  if (!Array.isArray(parts)) throw errors.invalidArgument(argument, parts, 'an array of Uint8Arrays');
  return parts.map((part, i) => checkValue(`${argument}[${i}]`, part));
}

/** A list with one entry for each key. */
export function checkList<T>(argument: string, list: readonly T[], keys: Keys): readonly T[] {
  if (!Array.isArray(list) || list.length !== keys.length) {
    throw errors.invalidArgument(argument, list, `an array of ${keys.length}, one for each key`);
  }
  return list;
}

export interface PutResult {
  statuses: Int32Array;
  /** What the service said of keys that it refused. */
  reasons: readonly (string | undefined)[];
}

/** Puts objects, each the concatenation of its parts. */
export async function putValues(
  context: StoreContext,
  keys: Keys,
  values: readonly (readonly ValueMemory[])[],
  options: PutValueOptions,
  upsert: boolean,
): Promise<PutResult> {
  const limits = new Limits(object('options', options), context);
  const sizes = Float64Array.from(values, (parts) => parts.reduce((sum, { bytes }) => sum + bytes.length, 0));
  const puts = await ObjectPuts.open(context, keys, sizes, { ...options, stride: 1, upsert }, limits);
  const [near, far] = [new Map<number, readonly ValueMemory[]>(), new Map<number, readonly ValueMemory[]>()];
  for (const [i, value] of values.entries()) {
    if (puts.statuses[i] === 0) (puts.isNear(i) ? near : far).set(i, value);
  }
  if (near.size > 0) await puts.fillNear(near, limits);
  if (far.size > 0) await puts.fillFar(far, limits);
  const failure = keys.length === 1 ? puts.failure(0) : undefined;
  if (failure !== undefined) {
    // What went wrong with the write is the news, not what went wrong with taking it back.
    await puts.abort(limits).catch(() => {});
    throw failure;
  }
  return { statuses: await puts.commit(limits), reasons: puts.reasons };
}

/** What a call reads in all stays in no cache from here on: copies that go past them are some times faster. */
const UNCACHED_BYTES = 2 ** 21;

function checkGet(options: GetValueOptions): GetValueOptions {
  const { size } = object('options', options);
  if (size !== undefined) integer('size', size, 1, Number.MAX_SAFE_INTEGER);
  return options;
}

let keeping = false;

/**
 * Where the accelerator is not there to ask for it. The allocator of most Linux systems (glibc) gives freed memory back to the kernel beyond a limit that is twice the
 * largest block it has seen freed, 64 MiB at most, and new memory costs a page fault for every 4 KiB. One large block,
 * never touched and free at the next garbage collection, raises the limit, so that large results reuse each other's pages.
 */
function keepFreedMemory(): void {
  if (keeping) return;
  keeping = true;
  new ArrayBuffer(LARGEST_KEPT);
}

const LARGEST_KEPT = 2 ** 25 - 2 ** 16;
const LARGE = 2 ** 17;

/** Memory of `size` bytes that is not cleared first. */
export function uncleared(size: number): Uint8Array {
  try {
    if (size >= LARGE && !(addon && keepFreedValues(addon))) keepFreedMemory();
    // Not from the pool of small buffers: the result is the caller's, who may transfer it away.
    const { buffer } = Buffer.allocUnsafeSlow(size);
    if (size >= LARGE && addon) countLater(addon, size);
    return new Uint8Array(buffer, 0, size);
  } catch {
    throw errors.outOfMemory('a value', size);
  }
}

/**
 * Reads whole objects into what `target` gives for their sizes; an object that it gives nothing for is a miss. Statuses
 * per key. `fresh`: what it gives is new memory.
 */
export async function getValues(
  context: StoreContext,
  keys: Keys,
  target: (key: number, size: number) => ValueMemory | undefined,
  options: GetValueOptions,
  fresh: boolean,
): Promise<Int32Array> {
  const limits = new Limits(checkGet(options), context);
  const gets = await ObjectGets.open(context, keys, { ...options, stride: 1 }, limits);
  const [near, far] = [new Map<number, ValueMemory>(), new Map<number, ValueMemory>()];
  const isLarge = gets.sizes.reduce((total, size) => total + size, 0) >= UNCACHED_BYTES;
  try {
    for (let i = 0; i < keys.length; i++) {
      if (gets.statuses[i] !== 0) continue;
      const fits = options.size === undefined || options.size === gets.sizes[i];
      const into = fits ? target(i, gets.sizes[i]) : undefined;
      if (into === undefined) gets.refuse(i, 'size');
      else (gets.isNear(i) ? near : far).set(i, into);
    }
    if (near.size > 0) await gets.fillNear(near, limits, fresh || isLarge);
    if (far.size > 0) await gets.fillFar(far, limits, fresh);
  } catch (error) {
    await gets.abort();
    throw error;
  }
  return gets.finish(limits);
}

/** An object where it lies; a copy where that is in another process. */
export async function viewValue(
  context: StoreContext,
  keys: Keys,
  options: GetValueOptions,
): Promise<ObjectView | undefined> {
  const limits = new Limits(checkGet(options), context);
  const gets = await ObjectGets.open(context, keys, { ...options, stride: 1 }, limits);
  const found = gets.found(0);
  if (found === undefined) return undefined;
  const { size, place, checksum } = found;
  const { memory, offset } = place;
  if (options.size !== undefined && options.size !== size) gets.refuse(0, 'size');
  const bytes = memory ? memory.bytes.subarray(offset, offset + size) : uncleared(size);
  try {
    if (memory) {
      gets.keep();
      await gets.check(0, limits);
    } else await gets.fillFar(new Map([[0, { bytes }]]), limits, true);
  } catch (error) {
    await gets.abort();
    throw error;
  }
  const [status] = await gets.finish(limits);
  if (status !== 0) return undefined;
  const verified = context.verify && checksum !== undefined;
  return memory ? new ObjectView(bytes, verified, memory, () => gets.leaseMs(0)) : new ObjectView(bytes, verified);
}

/** Sums objects where they lie; the corrupt ones are misses, which removes them. */
export async function examine(context: StoreContext, keys: Keys, tenant: string): Promise<void> {
  const limits = new Limits({}, context);
  const gets = await ObjectGets.open(
    { ...context, counters: new Counters(), verify: true },
    keys,
    { tenant, stride: 1 },
    limits,
  );
  for (let i = 0; i < keys.length; i++) await gets.check(i, limits);
  await gets.finish(limits);
}
