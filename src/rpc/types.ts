/**
 * Schemas of struct_pack: each type has its literal, which is hashed into the type's code, and measures, writes and reads
 * its values. A schema is a composition of the few constructors below and is data: nothing is generated.
 *
 * Reading is of bytes from a stranger: every length is checked against what is left before anything is made for it.
 */
import { errors } from '../core/errors.js';

/** What is known of a message before it is written: bytes without lengths, how many lengths, and the largest of them. */
export interface Measure {
  bytes: number;
  lengths: number;
  largest: number;
}

export interface Type<T> {
  /** Source: yalantinglibs, struct_pack/type_id.hpp and calculate_size.hpp; checked against the stock master's codes. */
  readonly literal: Uint8Array;
  /** Bytes that a value takes at least, lengths of containers counted as one byte. */
  readonly least: number;
  measure(value: T, into: Measure): void;
  write(value: T, writer: Writer): void;
  read(reader: Reader): T;
}

/** Any type, whatever its values: what compositions take. */
export interface Shape {
  readonly literal: Uint8Array;
  readonly least: number;
  measure(value: never, into: Measure): void;
  write(value: never, writer: Writer): void;
  read(reader: Reader): unknown;
}

/** The value that a schema describes. */
export type Value<S> = S extends Type<infer T> ? T : never;

const encoder = new TextEncoder();

/** Bytes of a message, with a view of them that is made when it is first needed: small messages need none. */
class Message {
  readonly bytes: Uint8Array;
  #view: DataView | undefined;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get view(): DataView {
    return (this.#view ??= new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength));
  }
}

export class Writer extends Message {
  constructor(
    bytes: Uint8Array,
    public at: number,
    public width: number,
  ) {
    super(bytes);
  }

  u32(value: number): void {
    const { bytes, at } = this;
    bytes[at] = value;
    bytes[at + 1] = value >>> 8;
    bytes[at + 2] = value >>> 16;
    bytes[at + 3] = value >>> 24;
    this.at = at + 4;
  }

  length(count: number): void {
    if (this.width === 0) this.bytes[this.at] = count;
    else if (this.width === 1) this.view.setUint16(this.at, count, true);
    else this.view.setUint32(this.at, count, true);
    this.at += 1 << this.width;
  }
}

export class Reader extends Message {
  readonly #end: number;

  constructor(
    bytes: Uint8Array,
    public at: number,
    readonly width: number,
  ) {
    super(bytes);
    this.#end = bytes.byteLength;
  }

  get left(): number {
    return this.#end - this.at;
  }

  /** Moves over `size` bytes that must be there; where they begin. */
  take(size: number): number {
    if (size > this.left) throw errors.protocol(`a value that ends ${size - this.left} bytes early`, this.bytes);
    const at = this.at;
    this.at += size;
    return at;
  }

  /** Length of a container of items that take at least `least` bytes each. */
  length(least: number): number {
    const at = this.take(1 << this.width);
    let count: number;
    if (this.width === 0) count = this.bytes[at];
    else if (this.width === 1) count = this.view.getUint16(at, true);
    else if (this.width === 2) count = this.view.getUint32(at, true);
    else count = Number(this.view.getBigUint64(at, true));
    if (count * least > this.left) throw errors.protocol(`a container of ${count} items in ${this.left} bytes`, count);
    return count;
  }
}

function fixed<T>(
  id: number,
  size: number,
  put: (view: DataView, at: number, value: T) => void,
  get: (view: DataView, at: number) => T,
): Type<T> {
  return {
    literal: Uint8Array.of(id),
    least: size,
    measure(_, into) {
      into.bytes += size;
    },
    write(value, writer) {
      put(writer.view, writer.at, value);
      writer.at += size;
    },
    read(reader) {
      return get(reader.view, reader.take(size));
    },
  };
}

export const i32 = fixed<number>(
  0x01,
  4,
  (view, at, value) => view.setInt32(at, value, true),
  (view, at) => view.getInt32(at, true),
);
export const u32 = fixed<number>(
  0x02,
  4,
  (view, at, value) => view.setUint32(at, value, true),
  (view, at) => view.getUint32(at, true),
);
export const i64 = fixed<bigint>(
  0x03,
  8,
  (view, at, value) => view.setBigInt64(at, value, true),
  (view, at) => view.getBigInt64(at, true),
);
export const u64 = fixed<bigint>(
  0x04,
  8,
  (view, at, value) => view.setBigUint64(at, value, true),
  (view, at) => view.getBigUint64(at, true),
);
export const u8 = fixed<number>(
  0x06,
  1,
  (view, at, value) => view.setUint8(at, value),
  (view, at) => view.getUint8(at),
);
export const bool = fixed<boolean>(
  0x0b,
  1,
  (view, at, value) => view.setUint8(at, value ? 1 : 0),
  // C++ reads any byte but 0 as true.
  (view, at) => view.getUint8(at) !== 0,
);

/** void in an expected, monostate in a variant. */
export const nothing: Type<undefined> = {
  literal: Uint8Array.of(0xfa),
  least: 0,
  measure() {},
  write() {},
  read: () => undefined,
};

const STRING = Uint8Array.of(0x80, 0x0c);

/** std::string as bytes: keys are bytes. A view of the message when read. */
export const bytes: Type<Uint8Array> = {
  literal: STRING,
  least: 1,
  measure(value, into) {
    into.bytes += value.length;
    into.lengths++;
    into.largest = Math.max(into.largest, value.length);
  },
  write(value, writer) {
    writer.length(value.length);
    writer.bytes.set(value, writer.at);
    writer.at += value.length;
  },
  read(reader) {
    const length = reader.length(1);
    const at = reader.take(length);
    return reader.bytes.subarray(at, at + length);
  },
};

// Wrong UTF-8 in a name must not become another name.
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The last short text that was read in each of a few places: most calls name the tenant, client or segment that a call before
 * them named, and to compare is several times as fast as to decode.
 */
const RECENT = 64;
const MAX_RECENT = 64;
const recent: { bytes: Uint8Array; text: string }[] = [];

function decode(from: Uint8Array, start: number, length: number): string {
  if (length === 0) return '';
  if (length > MAX_RECENT) return strict.decode(from.subarray(start, start + length));
  const place = (31 * length + from[start + length - 1]) % RECENT;
  const known = recent[place];
  if (known?.bytes.length === length) {
    let same = 0;
    while (same < length && known.bytes[same] === from[start + same]) same++;
    if (same === length) return known.text;
  }
  // Of a Buffer, `slice` would be a view that keeps all that came with it.
  const bytes = new Uint8Array(from.subarray(start, start + length));
  const decoded = strict.decode(bytes);
  recent[place] = { bytes, text: decoded };
  return decoded;
}

/** std::string as text: names, endpoints, protocols. Throws ERR_PROTOCOL for what is not UTF-8. */
export const text: Type<string> = {
  literal: STRING,
  least: 1,
  measure(value, into) {
    const size = Buffer.byteLength(value);
    into.bytes += size;
    into.lengths++;
    into.largest = Math.max(into.largest, size);
  },
  write(value, writer) {
    const size = Buffer.byteLength(value);
    writer.length(size);
    encoder.encodeInto(value, writer.bytes.subarray(writer.at));
    writer.at += size;
  },
  read(reader) {
    const length = reader.length(1);
    const at = reader.take(length);
    try {
      return decode(reader.bytes, at, length);
    } catch {
      throw errors.protocol('a name that is not UTF-8', reader.bytes.subarray(at, at + length));
    }
  },
};

/** std::pair<uint64_t, uint64_t>, Mooncake's UUID: 32 hex digits, first half first. */
export const uuid: Type<string> = {
  // A trivially copyable class without reflection says its alignments: 8 and 8, each as 129 + n.
  literal: Uint8Array.of(0xfd, 0x04, 0x04, 0x89, 0x89, 0xff),
  least: 16,
  measure(_, into) {
    into.bytes += 16;
  },
  write(value, writer) {
    writer.view.setBigUint64(writer.at, BigInt(`0x${value.slice(0, 16)}`), true);
    writer.view.setBigUint64(writer.at + 8, BigInt(`0x${value.slice(16)}`), true);
    writer.at += 16;
  },
  read(reader) {
    const at = reader.take(16);
    const half = (offset: number) =>
      reader.view
        .getBigUint64(at + offset, true)
        .toString(16)
        .padStart(16, '0');
    return half(0) + half(8);
  },
};

function join(...parts: (number | Uint8Array)[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => (typeof part === 'number' ? [part] : [...part])));
}

export function vector<T>(item: Type<T>): Type<readonly T[]> {
  return {
    literal: join(0x84, item.literal),
    least: 1,
    measure(value, into) {
      into.lengths++;
      into.largest = Math.max(into.largest, value.length);
      for (const one of value) item.measure(one, into);
    },
    write(value, writer) {
      writer.length(value.length);
      for (const one of value) item.write(one, writer);
    },
    read(reader) {
      const length = reader.length(item.least);
      const value = new Array<T>(length);
      for (let i = 0; i < length; i++) value[i] = item.read(reader);
      return value;
    },
  };
}

export function map<K, V>(key: Type<K>, item: Type<V>): Type<ReadonlyMap<K, V>> {
  return {
    literal: join(0x82, key.literal, item.literal),
    least: 1,
    measure(value, into) {
      into.lengths++;
      into.largest = Math.max(into.largest, value.size);
      for (const [k, v] of value) {
        key.measure(k, into);
        item.measure(v, into);
      }
    },
    write(value, writer) {
      writer.length(value.size);
      for (const [k, v] of value) {
        key.write(k, writer);
        item.write(v, writer);
      }
    },
    read(reader) {
      const value = new Map<K, V>();
      for (let left = reader.length(key.least + item.least); left > 0; left--) {
        const k = key.read(reader);
        value.set(k, item.read(reader));
      }
      return value;
    },
  };
}

export function optional<T>(item: Type<T>): Type<T | undefined> {
  return {
    literal: join(0x85, item.literal),
    least: 1,
    measure(value, into) {
      into.bytes++;
      if (value !== undefined) item.measure(value, into);
    },
    write(value, writer) {
      writer.bytes[writer.at++] = value === undefined ? 0 : 1;
      if (value !== undefined) item.write(value, writer);
    },
    read: (reader) => (bool.read(reader) ? item.read(reader) : undefined),
  };
}

/** A value, or the error that stands in its place. */
export type ExpectedValue<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: number };

export const success = <T>(value: T): ExpectedValue<T> => ({ ok: true, value });
export const failure = (error: number): ExpectedValue<never> => ({ ok: false, error });
/** Of a call that answers nothing but whether it succeeded. */
export const verdict = (status: number): ExpectedValue<undefined> =>
  status === 0 ? success(undefined) : failure(status);

/** tl::expected<T, ErrorCode>. */
export function expected<T>(item: Type<T>): Type<ExpectedValue<T>> {
  return {
    literal: join(0x87, item.literal, i32.literal),
    least: 1 + Math.min(item.least, i32.least),
    measure(value, into) {
      into.bytes++;
      if (value.ok) item.measure(value.value, into);
      else i32.measure(value.error, into);
    },
    write(value, writer) {
      writer.bytes[writer.at++] = value.ok ? 1 : 0;
      if (value.ok) item.write(value.value, writer);
      else i32.write(value.error, writer);
    },
    read(reader) {
      if (bool.read(reader)) return { ok: true, value: item.read(reader) };
      return { ok: false, error: i32.read(reader) };
    },
  };
}

/** The alternative that a variant holds, by name. */
export type VariantValue<A> = { [K in keyof A]: { readonly kind: K; readonly value: Value<A[K]> } }[keyof A];

/** std::variant; the order of the names is that of its alternatives. */
export function variant<A extends Record<string, Shape>>(alternatives: A): Type<VariantValue<A>> {
  const names = Object.keys(alternatives);
  const types = names.map((name) => alternatives[name] as Type<unknown>);
  return {
    literal: join(0x86, ...types.map((type) => type.literal), 0xff),
    least: 1 + Math.min(...types.map((type) => type.least)),
    measure(value, into) {
      into.bytes++;
      types[names.indexOf(value.kind as string)].measure(value.value, into);
    },
    write(value, writer) {
      const index = names.indexOf(value.kind as string);
      writer.bytes[writer.at++] = index;
      types[index].write(value.value, writer);
    },
    read(reader) {
      const index = u8.read(reader);
      const type = types[index];
      if (!type) throw errors.protocol(`alternative ${index} of a variant of ${types.length}`, index);
      return { kind: names[index], value: type.read(reader) } as VariantValue<A>;
    },
  };
}

export type StructValue<F> = { -readonly [K in keyof F]: Value<F[K]> };

/** A reflected struct; the order of the names is that of its fields. Names are ours: the wire has none. */
export function struct<F extends Record<string, Shape>>(fields: F): Type<StructValue<F>> {
  const names = Object.keys(fields);
  const types = names.map((name) => fields[name] as Type<unknown>);
  return {
    literal: join(0xfd, ...types.map((type) => type.literal), 0xff),
    least: types.reduce((sum, type) => sum + type.least, 0),
    measure(value, into) {
      for (let i = 0; i < names.length; i++) types[i].measure((value as Record<string, unknown>)[names[i]], into);
    },
    write(value, writer) {
      for (let i = 0; i < names.length; i++) types[i].write((value as Record<string, unknown>)[names[i]], writer);
    },
    read(reader) {
      const value: Record<string, unknown> = {};
      for (let i = 0; i < names.length; i++) value[names[i]] = types[i].read(reader);
      return value as StructValue<F>;
    },
  };
}
