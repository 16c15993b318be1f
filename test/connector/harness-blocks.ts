/**
 * The blocks of the harness's engine. A freed block is filled with noise at once, so that a transfer which touches it
 * afterwards is noticed; those of a preempted request when its workers have let go of them, in the same step.
 */
import type { CacheShape, RankCache } from './cache.js';
import type { HarnessRequest } from './harness-request.js';

export class BlockPool {
  readonly #blockSize: number;
  readonly #ranks: readonly RankCache[];
  readonly #free: number[];
  readonly #references = new Map<number, number>();
  /** Full blocks of living requests, by prefix; undefined where requests share none. */
  readonly #local: Map<string, number> | undefined;
  #preempted: number[] = [];

  constructor(shape: Omit<CacheShape, 'rank'>, share: boolean, ranks: readonly RankCache[]) {
    this.#blockSize = shape.blockSize;
    this.#ranks = ranks;
    this.#free = Array.from({ length: shape.blocks }, (_, block) => block);
    this.#local = share ? new Map() : undefined;
  }

  get free(): number {
    return this.#free.length;
  }

  /** Gives the request blocks for `tokens` tokens in all; the new ones, or null where there are not enough. */
  allocate(request: HarnessRequest, tokens: number): number[] | null {
    const missing = Math.ceil(tokens / this.#blockSize) - request.blocks.length;
    if (missing > this.#free.length) return null;
    const blocks = this.#free.splice(0, Math.max(0, missing));
    for (const block of blocks) this.#references.set(block, 1);
    request.blocks.push(...blocks);
    return blocks;
  }

  release({ blocks }: { blocks: number[] }): void {
    for (const block of blocks.splice(0)) {
      if (this.#dereference(block)) for (const rank of this.#ranks) rank.poison(block);
    }
  }

  /** Takes a request's blocks away. They are free for others, but changed only after handlePreemptions. */
  preempt(request: HarnessRequest): void {
    for (const block of request.blocks.splice(0)) if (this.#dereference(block)) this.#preempted.push(block);
  }

  takePreempted(): number[] {
    const blocks = this.#preempted;
    this.#preempted = [];
    return blocks;
  }

  /** Blocks that living requests have of this one's prefix; at least one token is left. */
  localPrefix(request: HarnessRequest): number[] {
    const blocks: number[] = [];
    for (let end = this.#blockSize; this.#local && end < request.tokens.length; end += this.#blockSize) {
      const block = this.#local.get(request.prefix.at(request.tokens, end - 1).join());
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  reuse(request: HarnessRequest, blocks: readonly number[]): void {
    for (const block of blocks) this.#references.set(block, this.#references.get(block)! + 1);
    request.blocks.push(...blocks);
  }

  /** Lets others find the full blocks of the request's first `tokens` tokens; as in vLLM, from the step that computes them. */
  share(request: HarnessRequest, tokens: number): void {
    for (let end = this.#blockSize; this.#local && end <= tokens; end += this.#blockSize) {
      const key = request.prefix.at(request.tokens, end - 1).join();
      if (!this.#local.has(key)) this.#local.set(key, request.blocks[end / this.#blockSize - 1]);
    }
  }

  /** Takes one reference away; true when it was the last, and the block is free. */
  #dereference(block: number): boolean {
    const left = this.#references.get(block)! - 1;
    this.#references.set(block, left);
    if (left > 0) return false;
    for (const [key, cached] of this.#local ?? []) if (cached === block) this.#local!.delete(key);
    this.#free.push(block);
    return true;
  }
}
