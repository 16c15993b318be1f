/**
 * Batches of puts, read from the message straight into typed arrays: an object and a bigint for each key would cost more than
 * the key's part of the work. On the wire they are what the schema says.
 */
import { type Packed, packed, statuses } from '../../rpc/batches.js';
import { method } from '../../rpc/method.js';
import { objectEnd, replicateConfig } from '../../rpc/schemas/v0_3_13.js';
import { i32, nothing, type Reader, type Type, text, u64, uuid, vector } from '../../rpc/types.js';

/** Keys of objects whose puts end, and the checksums of those that have one. */
export interface Ends extends Packed {
  readonly checksums: readonly (bigint | undefined)[];
}

function unwritten(): never {
  throw new Error('a request is read here, and written by clients with the schema');
}

function reading<T>(schema: { literal: Uint8Array }, read: (reader: Reader) => T): Type<T> {
  return { literal: schema.literal, least: 1, measure: unwritten, write: unwritten, read };
}

/** Sizes in bytes. One that no number is exact for is as hopeless as the largest that one is. */
const sizes = reading(vector(u64), (reader) => {
  const count = reader.length(8);
  const values = new Float64Array(count);
  const { view } = reader;
  let at = reader.take(8 * count);
  for (let i = 0; i < count; i++, at += 8) {
    const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    values[i] = Math.min(value, Number.MAX_SAFE_INTEGER);
  }
  return values;
});

const ends = reading<Ends>(vector(objectEnd), (reader) => {
  const count = reader.length(objectEnd.least);
  const offsets = new Uint32Array(count + 1);
  const checksums = new Array<bigint | undefined>(count).fill(undefined);
  const start = reader.at;
  for (let i = 0; i < count; i++) {
    const size = reader.length(1);
    reader.take(size);
    offsets[i + 1] = offsets[i] + size;
    if (reader.bytes[reader.take(1)] !== 0) checksums[i] = reader.view.getBigUint64(reader.take(8), true);
  }
  const bytes = new Uint8Array(offsets[count]);
  const prefix = 1 << reader.width;
  for (let i = 0, at = start; i < count; i++) {
    at += prefix;
    const size = offsets[i + 1] - offsets[i];
    bytes.set(reader.bytes.subarray(at, at + size), offsets[i]);
    at += size + (checksums[i] === undefined ? 1 : 9);
  }
  return { bytes, offsets, checksums };
});

const starts = { client: uuid, keys: packed, sizes, config: replicateConfig, tenant: text };

/** Arguments of the methods that begin puts of many objects. */
export const batchStart = method('BatchPutStart', starts, nothing).arguments!;

/** The methods that end them. */
export const END_METHODS = {
  BatchPutEnd: method('BatchPutEnd', { client: uuid, objects: ends, replicaType: i32, tenant: text }, statuses),
  BatchUpsertEnd: method('BatchUpsertEnd', { client: uuid, objects: ends, tenant: text }, statuses),
};
