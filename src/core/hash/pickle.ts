/**
 * Pickle, protocol 5, byte for byte as CPython's C pickler writes it (Modules/_pickle.c). Tokens are encoded in the core
 * (assembly/hash/encode.ts); this is for seeds and extra keys.
 *
 * Pickle writes an object that it has met before as a reference, and "met before" means the same object, not an equal
 * one. So the bytes are a function of the values only where no string and no bytes stand twice. vLLM's own tags are the
 * exception: constants of its code, each always the same object. Any other repetition is refused. Tuples are made by
 * vLLM where it needs them, so equal ones are never the same object.
 */
import { errors } from '../errors.js';
import { toHex } from '../hex.js';
import { bytesOf, checkDepth, type ExtraKey, integerOf, type Serializer, textOf } from './values.js';
import { Writer } from './writer.js';

const NONE = 0x4e;
const BININT = 0x4a;
const BININT1 = 0x4b;
const BININT2 = 0x4d;
const LONG1 = 0x8a;
const LONG4 = 0x8b;
const BINGET = 0x68;
const LONG_BINGET = 0x6a;
const MARK = 0x28;
const EMPTY_TUPLE = 0x29;
const TUPLE = 0x74;
/** TUPLE1 to TUPLE3 follow. */
const TUPLE0 = 0x84;
const MEMOIZE = 0x94;
const TEXT = { short: 0x8c, long: 0x58 };
const BYTES = { short: 0x43, long: 0x42 };
/** Above this the C pickler starts another frame. */
const FRAME_TARGET = 65536;

/** The tags of vLLM's extra keys (generate_block_hash_extra_keys). */
const TAGS = new Set(['lora', 'mm', 'cache_salt', 'prompt_embeds']);
/** The parent hash and the tuple of tokens come first. */
const MEMO_START = 2;

function content(out: Writer, opcode: { short: number; long: number }, bytes: Uint8Array): void {
  if (bytes.length < 0x100) out.u8(opcode.short).little(bytes.length, 1);
  else out.u8(opcode.long).little(bytes.length, 4);
  out.append(bytes).u8(MEMOIZE);
}

function integer(out: Writer, value: bigint): void {
  if (value >= 0n && value < 0x100n) out.u8(BININT1).little(value, 1);
  else if (value >= 0n && value < 0x10000n) out.u8(BININT2).little(value, 2);
  else if (value === BigInt.asIntN(32, value)) out.u8(BININT).little(value, 4);
  else {
    // The shortest two's complement.
    let size = 5;
    while (value !== BigInt.asIntN(8 * size, value)) size++;
    if (size < 0x100) out.u8(LONG1).little(size, 1);
    else out.u8(LONG4).little(size, 4);
    out.little(value, size);
  }
}

/** The extra keys of one block, with what its pickler remembers. */
class Keys {
  #next = MEMO_START;
  #seen = new Map<string, { index: number; tag: boolean }>();

  constructor(readonly out: Writer) {}

  tuple(argument: string, items: readonly ExtraKey[], depth: number): void {
    const { out } = this;
    checkDepth(argument, items, depth);
    if (items.length === 0) {
      out.u8(EMPTY_TUPLE);
      return;
    }
    if (items.length > 3) out.u8(MARK);
    for (let i = 0; i < items.length; i++) {
      this.#item(`${argument}[${i}]`, items[i], depth, depth === 1 && i === 0);
    }
    out.u8(items.length > 3 ? TUPLE : TUPLE0 + items.length).u8(MEMOIZE);
    this.#next++;
  }

  #item(argument: string, value: ExtraKey, depth: number, tagPlace: boolean): void {
    const { out } = this;
    if (typeof value === 'string') {
      const text = textOf(argument, value);
      const before = this.#meet(argument, value, `text ${value}`, tagPlace && TAGS.has(value));
      if (before === undefined) content(out, TEXT, text);
      else if (before < 0x100) out.u8(BINGET).little(before, 1);
      else out.u8(LONG_BINGET).little(before, 4);
    } else if (typeof value === 'number' || typeof value === 'bigint') integer(out, integerOf(argument, value));
    else if (value === null) out.u8(NONE);
    else if (Array.isArray(value)) this.tuple(argument, value, depth + 1);
    else {
      const bytes = bytesOf(argument, value as Uint8Array);
      this.#meet(argument, value, `bytes ${toHex(bytes)}`, false);
      content(out, BYTES, bytes);
    }
  }

  /** The memo's index of a tag met before; undefined for what is new, which is remembered. */
  #meet(argument: string, value: ExtraKey, key: string, tag: boolean): number | undefined {
    const before = this.#seen.get(key);
    if (before === undefined) {
      this.#seen.set(key, { index: this.#next++, tag });
      return undefined;
    }
    if (tag && before.tag) return before.index;
    throw errors.undefinedHash(
      argument,
      value,
      'a value that stands twice has no defined pickle (it depends on which Python objects are the same); use a CBOR algorithm',
    );
  }
}

export const pickle: Serializer = {
  extraKeys(out, argument, keys) {
    new Keys(out).tuple(argument, keys, 0);
  },
  seed(text) {
    const body = new Writer();
    content(body, TEXT, textOf('seed', text));
    body.u8(0x2e);
    if (body.length >= FRAME_TARGET) throw errors.invalidArgument('seed', text, 'shorter than 64 KiB');
    return new Writer().u8(0x80).u8(5).u8(0x95).little(body.length, 8).append(body.bytes).bytes;
  },
};
