/**
 * Batches in typed arrays: what hot calls carry, without an object for each key. On the wire they are what their literal
 * says, like any other type.
 */
import { errors } from '../core/errors.js';
import { bool, bytes, expected, nothing, type Type, vector } from './types.js';

/** Strings of one message, packed: text `i` is `bytes[offsets[i]]` up to `bytes[offsets[i + 1]]`. */
export interface Packed {
  readonly bytes: Uint8Array;
  /** One more than there are strings. */
  readonly offsets: Uint32Array;
}

/** vector<string> without an object per string: the keys of a batch. Empty strings are possible. */
export const packed: Type<Packed> = {
  literal: vector(bytes).literal,
  least: 1,
  measure({ offsets }, into) {
    const count = offsets.length - 1;
    into.bytes += offsets[count];
    into.lengths += count + 1;
    let largest = Math.max(into.largest, count);
    for (let i = 0; i < count; i++) largest = Math.max(largest, offsets[i + 1] - offsets[i]);
    into.largest = largest;
  },
  write(value, writer) {
    const count = value.offsets.length - 1;
    writer.length(count);
    for (let i = 0; i < count; i++) {
      const start = value.offsets[i];
      const size = value.offsets[i + 1] - start;
      writer.length(size);
      writer.bytes.set(value.bytes.subarray(start, start + size), writer.at);
      writer.at += size;
    }
  },
  read(reader) {
    const count = reader.length(1);
    const offsets = new Uint32Array(count + 1);
    const start = reader.at;
    // Every length prefix takes its width, so what is left of the message bounds the bytes of all strings.
    for (let i = 0; i < count; i++) {
      const size = reader.length(1);
      offsets[i + 1] = offsets[i] + size;
      reader.take(size);
    }
    const out = new Uint8Array(offsets[count]);
    const prefix = 1 << reader.width;
    let at = start;
    for (let i = 0; i < count; i++) {
      at += prefix;
      const size = offsets[i + 1] - offsets[i];
      out.set(reader.bytes.subarray(at, at + size), offsets[i]);
      at += size;
    }
    return { bytes: out, offsets };
  },
};

/** In these arrays an error is what is below 0, as all of Mooncake's are. */
function failed(error: number): number {
  if (error >= 0) throw errors.protocol('an error that is no error', error);
  return error;
}

/** Answers item by item: below 0 the error, else the value, which takes `okBytes`. */
function outcomes(item: Type<boolean> | Type<undefined>, okBytes: 0 | 1): Type<Int32Array> {
  return {
    literal: vector(expected(item as Type<unknown>)).literal,
    least: 1,
    measure(value, into) {
      let failed = 0;
      for (const one of value) if (one < 0) failed++;
      into.bytes += value.length * (1 + okBytes) + failed * (4 - okBytes);
      into.lengths++;
      into.largest = Math.max(into.largest, value.length);
    },
    write(value, writer) {
      writer.length(value.length);
      const { bytes: out, view } = writer;
      for (const one of value) {
        out[writer.at++] = one < 0 ? 0 : 1;
        if (one < 0) {
          view.setInt32(writer.at, one, true);
          writer.at += 4;
        } else if (okBytes) {
          out[writer.at++] = one;
        }
      }
    },
    read(reader) {
      const value = new Int32Array(reader.length(1 + okBytes));
      for (let i = 0; i < value.length; i++) {
        const ok = reader.bytes[reader.take(1)] !== 0;
        if (!ok) value[i] = failed(reader.view.getInt32(reader.take(4), true));
        else if (okBytes) value[i] = reader.bytes[reader.take(1)] !== 0 ? 1 : 0;
      }
      return value;
    },
  };
}

/** vector<expected<bool, ErrorCode>>: 1, 0, or a negative status. */
export const truths: Type<Int32Array> = outcomes(bool, 1);
/** vector<expected<void, ErrorCode>>: 0, or a negative status. */
export const statuses: Type<Int32Array> = outcomes(nothing, 0);
