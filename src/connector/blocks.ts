/**
 * Blocks of a request as connectors name them: the hashes of its full blocks, computed as its tokens come, and packed
 * object keys made of them.
 */

import type { HashOptions } from '../core/hash/plan.js';
import { type BlockHashOptions, blockHashes } from '../core/hash.js';
import { Keys } from '../core/keys.js';
import type { KvRequest } from './api.js';

/** Block hashes of a growing request: each block is hashed once. */
export class RequestHashes {
  /** Bytes of one hash. */
  width = 0;
  readonly #request: KvRequest;
  readonly #options: HashOptions;
  #bytes = new Uint8Array(0);
  #blocks = 0;

  constructor(request: KvRequest, options: HashOptions) {
    this.#request = request;
    this.#options = options;
  }

  /** The hashes of the request's first `blocks` blocks (fewer where it has fewer full ones), one after another; a view. */
  first(blocks: number): Uint8Array {
    if (blocks > this.#blocks) this.#extend();
    return this.#bytes.subarray(0, Math.min(blocks, this.#blocks) * this.width);
  }

  #extend(): void {
    const { tokens, extraKeys } = this.#request;
    const { blockSize } = this.#options;
    const blocks = Math.floor(tokens.length / blockSize);
    if (blocks === this.#blocks) return;
    const fresh = tokens.slice(this.#blocks * blockSize, blocks * blockSize);
    const options: BlockHashOptions = { ...this.#options, extraKeys: extraKeys?.slice(this.#blocks, blocks) };
    if (this.#blocks > 0) options.parent = this.#bytes.subarray(-this.width);
    const hashes = blockHashes(fresh, options);
    const joined = new Uint8Array(this.#bytes.length + hashes.bytes.length);
    joined.set(this.#bytes);
    joined.set(hashes.bytes, this.#bytes.length);
    this.width = hashes.width;
    this.#bytes = joined;
    this.#blocks = blocks;
  }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
const HIGH = Uint8Array.from(HEX, (digits) => digits.charCodeAt(0));
const LOW = Uint8Array.from(HEX, (digits) => digits.charCodeAt(1));
const AT = '@'.charCodeAt(0);

/**
 * Keys `PREFIX@HASH`, the hash in lower-case hex: for each hash (of `width` bytes) in turn one with each prefix, so that
 * key `i * prefixes.length + p` belongs to hash `i`.
 */
export function blockKeys(prefixes: readonly Uint8Array[], hashes: Uint8Array, width: number): Keys {
  const count = hashes.length / width;
  const perHash = prefixes.reduce((sum, prefix) => sum + prefix.length + 1 + 2 * width, 0);
  const bytes = new Uint8Array(count * perHash);
  const offsets = new Uint32Array(count * prefixes.length + 1);
  let at = 0;
  let key = 0;
  for (let hash = 0; hash < count; hash++) {
    for (const prefix of prefixes) {
      bytes.set(prefix, at);
      at += prefix.length;
      bytes[at++] = AT;
      for (let i = hash * width; i < (hash + 1) * width; i++) {
        bytes[at++] = HIGH[hashes[i]];
        bytes[at++] = LOW[hashes[i]];
      }
      offsets[++key] = at;
    }
  }
  return new Keys(bytes, offsets);
}

/** Of hashes over small blocks, those of blocks `step` times as large: a chain's last hash names all before it. */
export function everyHash(hashes: Uint8Array, width: number, step: number): Uint8Array {
  if (step === 1) return hashes;
  const count = Math.floor(hashes.length / width / step);
  const chosen = new Uint8Array(count * width);
  for (let i = 0; i < count; i++) {
    const last = ((i + 1) * step - 1) * width;
    chosen.set(hashes.subarray(last, last + width), i * width);
  }
  return chosen;
}
