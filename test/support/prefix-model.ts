/**
 * A naive prefix index: a map from a block's path to who holds it and when it was used. A path is a string with a letter
 * for each block, so a block's ancestors are the prefixes of its path, and chains branch and overlap all the time.
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

const hashes = new Map<string, Buffer>();

export function hashOf(path: string, width: KeyWidth): Uint8Array {
  let hash = hashes.get(path);
  if (!hash) hashes.set(path, (hash = createHash('sha256').update(path).digest()));
  return hash.subarray(0, width);
}

interface Block {
  used: number;
  holders: Set<string>;
}

export class Model {
  readonly blocks = new Map<string, Block>();
  #clock = 0;

  insert(holder: Holder, path: string, from: number): number {
    if (from > 0 && !this.blocks.has(path.slice(0, from))) return 0;
    if (from === path.length) return 0;
    this.#clock++;
    let added = 0;
    for (let end = 1; end <= path.length; end++) {
      const prefix = path.slice(0, end);
      let block = this.blocks.get(prefix);
      if (!block) this.blocks.set(prefix, (block = { used: 0, holders: new Set() }));
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
    for (const path of paths) if (this.blocks.get(path)?.holders.delete(keyOf(holder))) removed++;
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
    for (const path of this.blocks.keys()) if (!needed.has(path)) this.blocks.delete(path);
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
