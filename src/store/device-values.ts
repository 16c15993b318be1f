/**
 * Values in memory of GPUs, put and got whole: batches whose descriptors name the GPUs' segments, one record a value, which go by
 * way of pinned host memory and are checked there (transfer/device/staging.ts).
 */
import { integer, options as object } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import { DescriptorList } from '../transfer/descriptor-list.js';
import type { Transfer } from '../transfer/transfer.js';
import { OBJECTS } from './api.js';
import { Limits } from './batch.js';
import type { StoreContext } from './context.js';
import { ObjectGets } from './get.js';
import type { GetValueOptions, PutValueOptions } from './options.js';
import { ObjectPuts } from './put.js';
import type { PutResult, SegmentRange } from './values.js';

/** Whether the range is memory of a GPU. Throws ERR_INVALID_ARGUMENT where it leaves it. */
export function isDeviceRange(transfer: Transfer, argument: string, range: SegmentRange | undefined): boolean {
  const room = typeof range?.segment === 'number' ? transfer.devices?.length(range.segment) : undefined;
  if (range === undefined || room === undefined) return false;
  integer(`${argument}.offset`, range.offset, 0, room);
  integer(`${argument}.length`, range.length, 0, room - range.offset);
  return true;
}

/** Puts objects, each a range of registered memory. */
export async function putRanges(
  context: StoreContext,
  keys: Keys,
  ranges: readonly SegmentRange[],
  options: PutValueOptions,
  upsert: boolean,
): Promise<PutResult> {
  const limits = new Limits(object('options', options), context);
  const sizes = Float64Array.from(ranges, ({ length }) => length);
  const stride = strideOf(sizes);
  const puts = await ObjectPuts.open(context, keys, sizes, { ...options, stride, upsert }, limits);
  const list = new DescriptorList();
  for (const [i, { segment, offset, length }] of ranges.entries()) {
    if (puts.statuses[i] === 0) list.push(segment, offset, OBJECTS, i * stride, length);
  }
  try {
    if (!list.isEmpty) await puts.write(list.descriptors(), limits.rest());
  } catch (error) {
    if (keys.length > 1) return { statuses: await puts.commit(limits), reasons: puts.reasons };
    // What went wrong with the write is the news, not what went wrong with taking it back.
    await puts.abort(limits).catch(() => {});
    throw error;
  }
  return { statuses: await puts.commit(limits), reasons: puts.reasons };
}

/** Reads whole objects into ranges that have room for them; the others are misses. Sizes, or negative statuses. */
export async function getRanges(
  context: StoreContext,
  keys: Keys,
  ranges: readonly SegmentRange[],
  options: GetValueOptions,
): Promise<Float64Array> {
  const limits = new Limits(object('options', options), context);
  const stride = strideOf(ranges.map(({ length }) => length));
  const gets = await ObjectGets.open(context, keys, { ...options, stride }, limits);
  const list = new DescriptorList();
  try {
    for (const [i, { segment, offset, length }] of ranges.entries()) {
      const size = gets.sizes[i];
      if (gets.statuses[i] !== 0) continue;
      if (size > length || (options.size !== undefined && options.size !== size)) gets.refuse(i, 'size');
      else list.push(OBJECTS, i * stride, segment, offset, size);
    }
    if (!list.isEmpty) await gets.read(list.descriptors(), limits.rest());
  } catch (error) {
    await gets.abort();
    throw error;
  }
  const statuses = await gets.finish(limits);
  return gets.sizes.map((size, i) => (statuses[i] === 0 ? size : statuses[i]));
}

function strideOf(sizes: Iterable<number>): number {
  let stride = 1;
  for (const size of sizes) stride = Math.max(stride, size);
  return stride;
}

/** Throws ERR_NOT_SUPPORTED where some of the ranges are GPUs' and others are not. */
export function allDevice(
  transfer: Transfer,
  argument: string,
  ranges: readonly (SegmentRange | Uint8Array)[],
): boolean {
  const are = ranges.map((range, i) =>
    range instanceof Uint8Array ? false : isDeviceRange(transfer, `${argument}[${i}]`, range),
  );
  if (!are.includes(true)) return false;
  if (are.includes(false)) {
    throw errors.notSupported(`${argument}: memory of GPUs beside other memory`, 'make a call for each');
  }
  return true;
}
