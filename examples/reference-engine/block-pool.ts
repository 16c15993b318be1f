/**
 * The blocks of a KV cache: who uses them, and which still hold what was computed before. A block that nobody uses keeps
 * its content, and its hash, until it is needed for something else; the one used least recently goes first.
 */

interface Block {
  users: number;
  /** The hash under which a request may find its content; undefined: none that is whole and known to be right. */
  hash: string | undefined;
}

export class BlockPool {
  readonly #blocks: Block[];
  readonly #byHash = new Map<string, number>();
  // A Set keeps the order of insertion: the first is the block free for longest.
  readonly #free: Set<number>;

  constructor(blocks: number) {
    this.#blocks = Array.from({ length: blocks }, () => ({ users: 0, hash: undefined }));
    this.#free = new Set(this.#blocks.keys());
  }

  get size(): number {
    return this.#blocks.length;
  }

  /** Blocks that nobody uses. */
  get free(): number {
    return this.#free.size;
  }

  /** Blocks that a request may find by their hash. */
  get cached(): number {
    return this.#byHash.size;
  }

  /** The blocks that hold the longest prefix of `hashes`, not yet taken. */
  match(hashes: readonly string[]): number[] {
    const found: number[] = [];
    for (const hash of hashes) {
      const block = this.#byHash.get(hash);
      if (block === undefined) break;
      found.push(block);
    }
    return found;
  }

  /**
   * Takes `matched` blocks with their content and `count` more for new content. Null, and nothing taken, where there are
   * too few.
   */
  allocate(matched: readonly number[], count: number): number[] | null {
    const idle = matched.filter((block) => this.#blocks[block].users === 0).length;
    if (this.#free.size - idle < count) return null;
    for (const block of matched) {
      this.#blocks[block].users++;
      this.#free.delete(block);
    }
    const taken: number[] = [];
    for (const block of this.#free) {
      if (taken.length === count) break;
      taken.push(block);
    }
    for (const block of taken) {
      this.#free.delete(block);
      this.forget(block);
      this.#blocks[block].users = 1;
    }
    return [...matched, ...taken];
  }

  /** One more user of blocks that are in use. */
  retain(blocks: readonly number[]): void {
    for (const block of blocks) this.#blocks[block].users++;
  }

  /** Gives blocks back, in the order of their tokens: the last is the first to be used again. */
  release(blocks: readonly number[]): void {
    for (const block of [...blocks].reverse()) {
      if (--this.#blocks[block].users === 0) this.#free.add(block);
    }
  }

  /** The block now holds, whole, what `hash` names. Of two that hold the same the first is found. */
  remember(block: number, hash: string): void {
    if (this.#byHash.has(hash) || this.#blocks[block].hash !== undefined) return;
    this.#byHash.set(hash, block);
    this.#blocks[block].hash = hash;
  }

  /** The block is no longer found. */
  forget(block: number): void {
    const { hash } = this.#blocks[block];
    if (hash !== undefined) this.#byHash.delete(hash);
    this.#blocks[block].hash = undefined;
  }

  /** No block is found any longer: what is in use stays in use. */
  forgetAll(): void {
    for (const block of this.#blocks.keys()) this.forget(block);
  }
}
