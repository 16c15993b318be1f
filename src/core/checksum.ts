/**
 * CRC-64 of an object's bytes as the store keeps it: ECMA-182 polynomial 0x42F0E1EBA9EA3693, most significant bit first,
 * init 0, no final XOR (CRC-64/ECMA-182 of the CRC RevEng catalogue; "123456789" gives 0x6c40df5f0b497347).
 *
 * The state between two pieces is the CRC itself, so that crc64(a then b) = crc64(b, crc64(a)). Bytes of JavaScript go
 * through the scratch instance in pieces that stay in the second-level cache; bytes that lie in a core's memory already
 * are summed in place by the exports of `ChecksumExports`.
 */
import { bytes as checkBytes, integer, typedArray } from './check.js';
import { errors } from './errors.js';
import { type Core, scratch } from './wasm.js';

/** What assembly/checksum exports. `area` is crc64Scratch() bytes of scratch; a CRC in memory is little-endian. */
export interface ChecksumExports {
  /** Fills the tables; every instance calls it once before its first checksum. */
  crc64Init(): void;
  crc64(data: number, length: number, crc: bigint, area: number): bigint;
  crc64Update(crc: number, data: number, length: number, area: number): void;
  crc64Combine(a: bigint, b: bigint, length: bigint): bigint;
  crc64Scratch(): number;
}

const PIECE = 256 * 1024;
const MAX_CRC = 0xffff_ffff_ffff_ffffn;

interface Machine {
  core: Core<ChecksumExports>;
  /** Where the running CRC, the scratch area and a piece of the data lie. */
  state: number;
  area: number;
  data: number;
}

let machine: Machine | undefined;

function start(): Machine {
  const core = scratch<ChecksumExports>();
  core.exports.crc64Init();
  const area = core.heap + 16;
  const data = area + ((core.exports.crc64Scratch() + 15) & ~15);
  return { core, state: core.heap, area, data };
}

/** Runs `bytes` through the CRC that lies at `state`. */
function run({ core, state, area, data }: Machine, bytes: Uint8Array): void {
  core.reserve(data + Math.min(bytes.length, PIECE), 'crc64');
  const { u8, exports } = core;
  if (bytes.length <= PIECE) {
    u8.set(bytes, data);
    exports.crc64Update(state, data, bytes.length, area);
    return;
  }
  for (let at = 0; at < bytes.length; at += PIECE) {
    const piece = bytes.subarray(at, at + PIECE);
    u8.set(piece, data);
    exports.crc64Update(state, data, piece.length, area);
  }
}

function checkCrc(argument: string, value: unknown): bigint {
  if (typeof value !== 'bigint' || value < 0n || value > MAX_CRC) {
    throw errors.invalidArgument(argument, value, 'a bigint from 0n to 2n ** 64n - 1n');
  }
  return value;
}

/**
 * CRC-64 of `bytes`, continuing from `crc`, the CRC of what came before.
 * @throws ERR_INVALID_ARGUMENT
 */
export function crc64(bytes: Uint8Array | ArrayBuffer, crc = 0n): bigint {
  const view = checkBytes('bytes', bytes);
  checkCrc('crc', crc);
  machine ??= start();
  const { core, state } = machine;
  core.u64[state >> 3] = crc;
  run(machine, view);
  return core.u64[state >> 3];
}

/**
 * CRC-64 of `bytes`, written to `out[at]` to `out[at + 7]`, least significant byte first (the order of a u64 on
 * Mooncake's wire). Makes no BigInt and no object: for loops over many blocks.
 * @throws ERR_INVALID_ARGUMENT
 */
export function crc64Into(bytes: Uint8Array | ArrayBuffer, out: Uint8Array, at = 0): void {
  const view = checkBytes('bytes', bytes);
  typedArray('out', out, out instanceof Uint8Array, 'a Uint8Array');
  if (out.length < 8) throw errors.invalidArgument('out', out, 'at least 8 bytes long');
  integer('at', at, 0, out.length - 8);
  machine ??= start();
  const { core, state } = machine;
  core.f64[state >> 3] = 0;
  run(machine, view);
  const { u8 } = core;
  for (let i = 0; i < 8; i++) out[at + i] = u8[state + i];
}

/**
 * CRC-64 of A followed by B, given `a` = crc64(A), `b` = crc64(B) and the length of B in bytes.
 * @throws ERR_INVALID_ARGUMENT
 */
export function crc64Combine(a: bigint, b: bigint, lengthB: number): bigint {
  checkCrc('a', a);
  checkCrc('b', b);
  integer('lengthB', lengthB, 0, Number.MAX_SAFE_INTEGER);
  const { exports } = scratch<ChecksumExports>();
  return BigInt.asUintN(64, exports.crc64Combine(a, b, BigInt(lengthB)));
}

/** A CRC-64 over bytes that come in pieces. */
export class Crc64 {
  #crc = 0n;
  #length = 0;

  /** Bytes summed so far. */
  get length(): number {
    return this.#length;
  }

  /** @throws ERR_INVALID_ARGUMENT, the sum unchanged */
  update(bytes: Uint8Array | ArrayBuffer): this {
    const view = checkBytes('bytes', bytes);
    this.#crc = crc64(view, this.#crc);
    this.#length += view.length;
    return this;
  }

  /** The CRC of all pieces so far; more may follow. */
  digest(): bigint {
    return this.#crc;
  }
}
