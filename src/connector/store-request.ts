/** What the scheduler half knows of one request: its hashes, what the store has of them, what is loaded and saved. */
import type { HashOptions } from '../core/hash/plan.js';
import type { GroupBlocks, KvRequest } from './api.js';
import { everyHash, RequestHashes } from './blocks.js';
import { endOnly, type Presence, seenBlocks } from './store-lookup.js';
import type { LoadBlocks, SaveJob, StoreGroup } from './store-metadata.js';
import { pickHashes } from './store-worker-context.js';

export interface Lookup {
  /** Tokens of the request, and tokens that the engine had, when it was asked for. */
  readonly tokens: number;
  readonly computed: number;
  readonly controller: AbortController;
  /** When the answer came, by performance.now(); undefined while it is on its way. */
  answered?: number;
  /** The engine has heard the answer. */
  used: boolean;
  /** Undefined where the store could not be asked. */
  presence?: Presence;
}

/** Tokens `from` to `to` of a request. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export class StoreRequest {
  readonly request: KvRequest;
  readonly hashes: RequestHashes;
  lookup: Lookup | undefined;
  offer: Span | undefined;
  /** The load that the engine has agreed to. */
  load: (Span & { sent: boolean; ended: boolean }) | undefined;
  loadFailed = false;
  /** Some save of it went to the workers. */
  saved = false;
  /** Tokens whose KV was there before the step that was last built, and is there when it has ended. */
  #settled = 0;
  #computed = 0;
  readonly #groups: readonly StoreGroup[];
  readonly #hashBlockSize: number;
  #blocks: number[][];
  /** By group: the first block that was not yet considered for saving. */
  #next: number[];

  constructor(request: KvRequest, groups: readonly StoreGroup[], hash: HashOptions) {
    this.request = request;
    this.hashes = new RequestHashes(request, hash);
    this.#groups = groups;
    this.#hashBlockSize = hash.blockSize;
    this.#blocks = groups.map(() => []);
    this.#next = groups.map(() => 0);
  }

  setBlocks(blocks: GroupBlocks): void {
    this.#blocks = this.#groups.map((_, group) => [...(blocks[group] ?? [])]);
  }

  addBlocks(blocks: GroupBlocks): void {
    for (const [group, own] of this.#blocks.entries()) own.push(...(blocks[group] ?? []));
  }

  get hasBlocks(): boolean {
    return this.#blocks.some((ids) => ids.length > 0);
  }

  /** Tokens whose KV is there when the step that was last built has ended. */
  get computed(): number {
    return this.#computed;
  }

  /** A step is built that computes up to token `computed`, where `settled` are there. */
  compute(settled: number, computed: number): void {
    // The step before this one was given up: what it was to save was not saved.
    if (settled < this.#computed) this.#saveFrom(settled);
    this.#settled = settled;
    // Draft tokens are scheduled too, but are not the request's yet: their KV may be that of others.
    this.#computed = Math.min(computed, this.request.tokens.length);
  }

  /** The step that was last built may have been given up, because some load of it failed. */
  doubt(): void {
    this.#computed = Math.min(this.#computed, this.#settled);
    this.#saveFrom(this.#computed);
  }

  #saveFrom(token: number): void {
    this.#next = this.#next.map((next, group) => Math.min(next, Math.floor(token / this.#groups[group].blockSize)));
  }

  /** The engine has taken the blocks away. */
  reset(): void {
    this.setBlocks([]);
    this.#saveFrom(0);
    this.#settled = 0;
    this.#computed = 0;
    this.offer = undefined;
    this.load = undefined;
    this.loadFailed = false;
    this.dropLookup();
  }

  dropLookup(): void {
    this.lookup?.controller.abort();
    this.lookup = undefined;
  }

  /** Some of these blocks did not arrive: what is known of the store is not to be trusted, and all is saved anew. */
  failLoad(invalid: ReadonlySet<number>): void {
    let first = Number.POSITIVE_INFINITY;
    for (const [group, ids] of this.#blocks.entries()) {
      const block = ids.findIndex((id) => invalid.has(id));
      if (block >= 0) first = Math.min(first, block * this.#groups[group].blockSize);
    }
    if (first === Number.POSITIVE_INFINITY) return;
    this.loadFailed = true;
    this.dropLookup();
    this.#computed = Math.min(this.#computed, first);
    this.#saveFrom(0);
  }

  /** The blocks to load for `span`, by group. */
  loads({ from, to }: Span, presence: Presence): LoadBlocks[] {
    return this.#groups.flatMap((group, index) => {
      const positions = seenBlocks(group, to).filter(
        (position) => position * group.blockSize >= from && this.#block(index, position) !== undefined,
      );
      if (positions.length === 0) return [];
      const sources = positions.map((position) => presence.source(index, position));
      return [{ ...this.#pick(index, positions), sources }];
    });
  }

  /**
   * The blocks that are full at token `full` and were neither saved nor found in the store before; the first ones, full at
   * token `ready`, may be read before the step.
   */
  saves(ready: number, full: number): SaveJob[] {
    const presence = this.lookup?.presence;
    return this.#groups.flatMap(({ blockSize }, group) => {
      const end = Math.floor(full / blockSize);
      const positions: number[] = [];
      for (let position = this.#next[group]; position < end; position++) {
        if (!presence?.has(group, position) && this.#block(group, position) !== undefined) positions.push(position);
      }
      this.#next[group] = Math.max(this.#next[group], end);
      if (positions.length === 0) return [];
      const before = positions.filter((position) => (position + 1) * blockSize <= ready).length;
      return [{ ...this.#pick(group, positions), ready: before }];
    });
  }

  /** The id of a block, where the request has one there. */
  #block(group: number, position: number): number | undefined {
    const id = this.#blocks[group][position];
    const { kind, nullBlock } = this.#groups[group];
    const hole = endOnly({ kind }) && (id === nullBlock || id === -1);
    return hole ? undefined : id;
  }

  #pick(group: number, positions: readonly number[]) {
    const { blockSize } = this.#groups[group];
    const step = blockSize / this.#hashBlockSize;
    const hashes = this.hashes.first(((positions.at(-1) as number) + 1) * step);
    const own = everyHash(hashes, this.hashes.width, step);
    return {
      requestId: this.request.requestId,
      group,
      positions,
      blockIds: positions.map((position) => this.#block(group, position) as number),
      hashes: pickHashes(own, this.hashes.width, positions),
    };
  }
}
