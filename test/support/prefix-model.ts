/**
 * A naive prefix index: a map from a block's path to who holds it and when it was used. A path is a string with a letter
 * for each block, so a block's ancestors are the prefixes of its path, and chains branch and overlap all the time.
 *
 * A capital letter is a block of twice the size: its hash is that of the second of the two small blocks it covers. So a
 * hash stands under two parents, as it does where the KV-cache groups of an engine have blocks of two sizes.
 */
import { createHash } from 'node:crypto';
import type { KeyWidth, Tier } from 'mooncake-ts';

export interface Holder {
  instance: number;
  tier: Tier;
  group: number;
}

const keyOf = ({ instance, tier, group }: Holder) => `${instance} ${tier} ${group}`;

/** Hashes of the blocks of `path` from depth `from` on. */
export function hashesOf(path: string, width: KeyWidth, from = 0): Uint8Array {
  const bytes = new Uint8Array((path.length - from) * width);
  for (let end = from + 1; end <= path.length; end++) {
    bytes.set(hashOf(path.slice(0, end), width), (end - from - 1) * width);
  }
  return bytes;
}

const LARGE: Record<string, string> = { A: 'ab', B: 'ba', C: 'aa' };
const hashes = new Map<string, Buffer>();

/** The tokens that a path covers: what its hash is of. */
const tokensOf = (path: string) => (/^[a-z]*$/.test(path) ? path : path.replace(/[A-Z]/g, (letter) => LARGE[letter]));

export function hashOf(path: string, width: KeyWidth): Uint8Array {
  let hash = hashes.get(path);
  if (!hash) hashes.set(path, (hash = createHash('sha256').update(tokensOf(path)).digest()));
  return hash.subarray(0, width);
}

interface Block {
  used: number;
  holders: Set<string>;
}

export class Model {
  readonly blocks = new Map<string, Block>();
  // The paths of all blocks by what their hashes are of.
  readonly #places = new Map<string, Set<string>>();
  #clock = 0;

  /** The paths whose last block has the same hash. */
  places(path: string): string[] {
    return [...(this.#places.get(tokensOf(path)) ?? [])];
  }

  /** The place that a holder means by a hash: the only one it holds, or the only one there is. */
  parent(holder: Holder, path: string): string | undefined {
    const places = this.places(path);
    const held = places.filter((place) => this.blocks.get(place)!.holders.has(keyOf(holder)));
    const meant = held.length > 0 ? held : places;
    return meant.length === 1 ? meant[0] : undefined;
  }

  /** Records the blocks of `path` from depth `from` on, which stands at a known place. */
  insert(holder: Holder, path: string, from: number): number {
    if (from === path.length) return 0;
    this.#clock++;
    let added = 0;
    for (let end = 1; end <= path.length; end++) {
      const prefix = path.slice(0, end);
      let block = this.blocks.get(prefix);
      if (!block) {
        this.blocks.set(prefix, (block = { used: 0, holders: new Set() }));
        const tokens = tokensOf(prefix);
        this.#places.set(tokens, (this.#places.get(tokens) ?? new Set()).add(prefix));
      }
      block.used = this.#clock;
      if (end <= from || block.holders.has(keyOf(holder))) continue;
      block.holders.add(keyOf(holder));
      added++;
    }
    return added;
  }

  touch(path: string): number {
    this.#clock++;
    let end = 0;
    for (; end < path.length; end++) {
      const block = this.blocks.get(path.slice(0, end + 1));
      if (!block) break;
      block.used = this.#clock;
    }
    return end;
  }

  remove(holder: Holder, paths: string[]): number {
    let removed = 0;
    for (const path of paths) {
      for (const place of this.places(path)) if (this.blocks.get(place)!.holders.delete(keyOf(holder))) removed++;
    }
    this.#prune();
    return removed;
  }

  clear(matches: (holder: Holder) => boolean): number {
    let removed = 0;
    for (const block of this.blocks.values()) {
      for (const key of block.holders) {
        const [instance, tier, group] = key.split(' ');
        if (!matches({ instance: Number(instance), tier: tier as Tier, group: Number(group) })) continue;
        block.holders.delete(key);
        removed++;
      }
    }
    this.#prune();
    return removed;
  }

  // A block exists while it or a descendant is held.
  #prune(): void {
    const needed = new Set<string>();
    for (const [path, block] of this.blocks) {
      if (block.holders.size > 0) for (let end = 1; end <= path.length; end++) needed.add(path.slice(0, end));
    }
    for (const path of this.blocks.keys()) {
      if (needed.has(path)) continue;
      this.blocks.delete(path);
      this.#places.get(tokensOf(path))!.delete(path);
    }
  }

  /** Leading blocks of `path` held by anyone that `matches`. */
  leading(path: string, matches: (holder: string) => boolean): number {
    let end = 0;
    for (; end < path.length; end++) {
      const block = this.blocks.get(path.slice(0, end + 1));
      if (!block || ![...block.holders].some(matches)) break;
    }
    return end;
  }

  evictionOrder(matches: (holder: string) => boolean): string[] {
    return [...this.blocks]
      .filter(([, block]) => [...block.holders].some(matches))
      .sort(([a, x], [b, y]) => x.used - y.used || b.length - a.length)
      .map(([path]) => path);
  }

  get held(): number {
    let held = 0;
    for (const block of this.blocks.values()) held += block.holders.size;
    return held;
  }
}
