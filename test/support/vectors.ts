/** Hash vectors made by vLLM (test/vectors), and a naive hasher of our own to compare longer runs with. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ExtraKey, HashAlgorithm } from 'mooncake-ts';

export function readVectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8')) as T;
}

export const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** Tokens of a rule of make_block_hashes.py: (start + i * step) % modulus. */
export function ruled([start, step, modulus, count]: number[]): number[] {
  return Array.from({ length: count }, (_, i) => Number((BigInt(start) + BigInt(i) * BigInt(step)) % BigInt(modulus)));
}

/** Python's tuples in block_hash_vectors.json are {"tuple": […]}. */
type Tupled = { tuple: Tupled[] } | { bytes_hex: string } | string | number | null;

export function untuple(value: Tupled): ExtraKey {
  return value !== null && typeof value === 'object' && 'tuple' in value ? value.tuple.map(untuple) : value;
}

export interface Vector {
  kind: 'block' | 'none_hash';
  algo: HashAlgorithm;
  pythonhashseed: string | null;
  block_size: number;
  parent: string | null;
  tokens: number[];
  extra_keys: Tupled;
  hash: string;
  event_int64: number;
  with_group_id_0: string;
  group7: string;
}

function cborHead(major: number, value: number): number[] {
  if (value < 24) return [(major << 5) | value];
  if (value < 256) return [(major << 5) | 24, value];
  if (value < 65536) return [(major << 5) | 25, value >> 8, value & 255];
  return [(major << 5) | 26, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

/** sha256_cbor block by block with node:crypto. Extra keys: at most one ("cache_salt", salt) a block. */
export function naiveChain(
  parent: Uint8Array,
  tokens: ArrayLike<number>,
  blockSize: number,
  salts: (string | null)[] = [],
) {
  const hashes: string[] = [];
  for (let at = 0; at + blockSize <= tokens.length; at += blockSize) {
    const message = [0x83, 0x58, 0x20, ...parent, ...cborHead(4, blockSize)];
    for (let i = at; i < at + blockSize; i++) message.push(...cborHead(0, tokens[i]));
    const salt = salts[at / blockSize] ?? null;
    if (salt === null) message.push(0xf6);
    else {
      const text = Buffer.from(salt);
      message.push(0x81, 0x82, 0x6a, ...Buffer.from('cache_salt'), ...cborHead(3, text.length), ...text);
    }
    parent = createHash('sha256').update(Uint8Array.from(message)).digest();
    hashes.push(hex(parent));
  }
  return hashes;
}
