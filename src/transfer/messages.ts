/**
 * Messages between peers: plain data (null, undefined, booleans, numbers, bigints of 64 bits, strings, Uint8Arrays, arrays,
 * string-keyed objects) packed as msgpack. Values are checked before they are packed, and the packed form before it is
 * unpacked: lengths that lie, extension types and deep nesting never reach the decoder, which would allocate what they
 * claim.
 */
import { Packr } from 'msgpackr';
import { isWellFormed, typedArray } from '../core/check.js';
import { errors, MooncakeError, show } from '../core/errors.js';

const MAX_DEPTH = 64;
const MIN_I64 = -(2n ** 63n);
const MAX_U64 = 2n ** 64n - 1n;

const packr = new Packr({ useRecords: false, int64AsType: 'bigint', variableMapSize: true });

/** `room` counts down the values that a message may still have. */
function checkPlain(path: string, value: unknown, depth: number, room: { values: number }): void {
  const refuse = (expected: string) => errors.invalidArgument(path, value, expected);
  if (--room.values < 0) throw refuse('the end of a message: it has too many values');
  if (value === null || value === undefined) return;
  switch (typeof value) {
    case 'boolean':
    case 'number':
      return;
    case 'string':
      // UTF-8 has no lone surrogates: two keys that differ in one would arrive as the same.
      if (!isWellFormed(value)) throw refuse('a string without lone surrogates');
      return;
    case 'bigint':
      if (value < MIN_I64 || value > MAX_U64) throw refuse('a bigint of 64 bits');
      return;
    case 'object':
      break;
    default:
      throw refuse('plain data');
  }
  if (depth === MAX_DEPTH) throw refuse(`nested at most ${MAX_DEPTH} deep`);
  if (value instanceof Uint8Array) {
    typedArray(path, value, true, 'a Uint8Array');
    return;
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) checkPlain(`${path}[${i}]`, value[i], depth + 1, room);
    return;
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw refuse('plain data: a Uint8Array, an array or an object without a class');
  }
  for (const [key, entry] of Object.entries(value)) {
    // The decoder renames that key, so that nobody's prototype is set.
    if (key === '__proto__' || !isWellFormed(key))
      throw refuse('an object without __proto__ and lone surrogates as keys');
    checkPlain(`${path}.${key}`, entry, depth + 1, room);
  }
}

/** Throws ERR_INVALID_ARGUMENT, naming the value that is no plain data, or the whole where it is too large. */
export function pack(argument: string, value: unknown, maxBytes: number): Uint8Array {
  // A value takes a byte at least. Few objects that hold each other many times over are more values than can be packed.
  checkPlain(argument, value, 0, { values: maxBytes });
  // The packer's own buffer is shared and short-lived; what is sent later must be a copy.
  const packed = Uint8Array.from(packr.pack(value));
  if (packed.length > maxBytes) {
    throw errors.invalidArgument(argument, packed, `at most ${maxBytes} bytes long when packed`);
  }
  return packed;
}

/** Throws ERR_PROTOCOL for bytes that `pack` does not make. Uint8Arrays in the result are views of `bytes`. */
export function unpack(bytes: Uint8Array): unknown {
  if (!wellFormed(bytes)) throw errors.protocol('a message is not msgpack of plain data', bytes);
  // A view of its own: the decoder leaves a property on it, and gives Buffers for a Buffer.
  return packr.unpack(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

/** Whether the bytes are one value of plain data, and nothing else (msgpack's specification). */
export function wellFormed(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Values still to come at each level; keys of maps count as values.
  const open: number[] = [1];
  // Whether the level is a map, whose keys (when an even number is to come) must be strings.
  const maps: boolean[] = [false];
  let at = 0;
  while (open.length > 0) {
    const level = open.length - 1;
    if (open[level] === 0) {
      open.pop();
      maps.pop();
      continue;
    }
    if (at >= bytes.length) return false;
    const key = maps[level] && open[level] % 2 === 0;
    open[level]--;
    const shape = shapeAt(view, at);
    if (shape === undefined || (key && shape.kind !== 'string')) return false;
    at += shape.bytes;
    if (at > bytes.length) return false;
    if (shape.kind !== 'array' && shape.kind !== 'map') continue;
    const values = shape.kind === 'map' ? 2 * shape.count : shape.count;
    if (values > bytes.length - at || open.length > MAX_DEPTH + 1) return false;
    open.push(values);
    maps.push(shape.kind === 'map');
  }
  return at === bytes.length;
}

interface Shape {
  kind: 'scalar' | 'string' | 'array' | 'map';
  /** Of this value without what it contains. */
  bytes: number;
  count: number;
}

const scalar = (bytes: number): Shape => ({ kind: 'scalar', bytes, count: 0 });

// By first byte: fixed widths of nil, false, true, floats and integers.
const SCALARS: Record<number, number> = {
  192: 1,
  194: 1,
  195: 1,
  202: 5,
  203: 9,
  204: 2,
  205: 3,
  206: 5,
  207: 9,
  208: 2,
  209: 3,
  210: 5,
  211: 9,
};

/** A value whose length takes 1, 2 or 4 bytes after the first byte; undefined where the buffer ends before. */
function lengthAt(view: DataView, at: number, width: number): number | undefined {
  if (at + 1 + width > view.byteLength) return undefined;
  if (width === 1) return view.getUint8(at + 1);
  return width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
}

function shapeAt(view: DataView, at: number): Shape | undefined {
  const first = view.getUint8(at);
  if (first < 0x80 || first >= 0xe0) return scalar(1);
  if (first < 0x90) return { kind: 'map', bytes: 1, count: first & 15 };
  if (first < 0xa0) return { kind: 'array', bytes: 1, count: first & 15 };
  if (first < 0xc0) return { kind: 'string', bytes: 1 + (first & 31), count: 0 };
  if (SCALARS[first]) return scalar(SCALARS[first]);
  // undefined: extension type 0 of one zero byte.
  if (first === 0xd4) {
    const bare = at + 3 <= view.byteLength && view.getUint16(at + 1) === 0;
    return bare ? scalar(3) : undefined;
  }
  const sized = (base: number, widths: number[], shape: (length: number, width: number) => Shape) => {
    const width = widths[first - base];
    const length = lengthAt(view, at, width);
    return length === undefined ? undefined : shape(length, width);
  };
  if (first >= 0xc4 && first <= 0xc6) return sized(0xc4, [1, 2, 4], (length, width) => scalar(1 + width + length));
  if (first >= 0xd9 && first <= 0xdb) {
    return sized(0xd9, [1, 2, 4], (length, width) => ({ kind: 'string', bytes: 1 + width + length, count: 0 }));
  }
  if (first === 0xdc || first === 0xdd) {
    return sized(0xdc, [2, 4], (count, width) => ({ kind: 'array', bytes: 1 + width, count }));
  }
  if (first === 0xde || first === 0xdf) {
    return sized(0xde, [2, 4], (count, width) => ({ kind: 'map', bytes: 1 + width, count }));
  }
  return undefined;
}

const CODE = /^ERR_[A-Z_]{1,60}$/;
const MAX_TEXT = 1000;

const cut = (text: string) => text.slice(0, MAX_TEXT);

function failureParts(error: unknown): [code: string, message: string, argument: string | null] {
  if (error instanceof MooncakeError && CODE.test(error.code)) {
    return [error.code, cut(error.message), error.argument === undefined ? null : cut(error.argument)];
  }
  return ['ERR_PEER', cut(`the handler failed: ${error instanceof Error ? error.message : show(error)}`), null];
}

/** What a handler or a move threw, as it goes to the peer; never throws. */
export function packFailure(error: unknown): Uint8Array {
  let parts: (string | null)[];
  try {
    parts = failureParts(error);
  } catch {
    // A message that is no string, a getter or a proxy that throws: the caller still gets its answer.
    parts = ['ERR_PEER', 'the handler failed', null];
  }
  return Uint8Array.from(packr.pack(parts));
}

/** The peer's error, with its code. Throws ERR_PROTOCOL. */
export function unpackFailure(bytes: Uint8Array): MooncakeError {
  const parts = unpack(bytes);
  if (!Array.isArray(parts) || typeof parts[0] !== 'string' || !CODE.test(parts[0]) || typeof parts[1] !== 'string') {
    throw errors.protocol('a failure without code and message', parts);
  }
  const [code, message, argument] = parts;
  // A newer peer may have codes that this version does not list; they are shown as they are.
  return new MooncakeError(code as MooncakeError['code'], message, typeof argument === 'string' ? { argument } : {});
}
