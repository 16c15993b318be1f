/**
 * Loading the blocks of one request into one rank's cache. Blocks go in batches, each opened, read and judged by the
 * store; where a rank's part is cut out of larger objects, these are read whole and verified in a segment aside, and then
 * picked apart. A prefix is only as good as its first hole: what lies behind a failed block counts as failed too.
 */
import { STATUS } from '../master/status.js';
import { blockKeys } from './blocks.js';
import type { Aside } from './store-aside.js';
import type { LoadBlocks, LoadJob } from './store-metadata.js';
import { MAX_OBJECTS } from './store-objects.js';
import type { Slice, Source } from './store-sources.js';
import { type Limiter, pickHashes, type StoreWorkerContext } from './store-worker-context.js';

/** Blocks whose bytes come from one slice, in one batch. */
interface Part {
  readonly slice: Slice;
  readonly blocks: LoadBlocks;
  /** Which of `blocks`. */
  readonly indices: readonly number[];
}

/** A group's part in how long a loaded prefix may be. */
export interface LoadGroup {
  readonly blockSize: number;
  /** Layers (global indices) in the order of reading. */
  readonly layers: readonly number[];
  /** Only the end of a prefix matters (a window, a state): a shorter prefix would need other blocks. */
  readonly endOnly: boolean;
}

export class LoadTask {
  readonly job: LoadJob;
  /** Resolves, never rejects, when nothing is written to the cache any more. */
  readonly done: Promise<void>;
  /** Ids of the blocks that failed; complete when done. */
  failed: number[] = [];
  aborted = false;
  readonly #context: StoreWorkerContext;
  readonly #groups: readonly LoadGroup[];
  readonly #aside: Aside;
  readonly #controller = new AbortController();
  readonly #parts: Part[];
  /** Parts that still have to read a layer, and whom to tell. */
  readonly #gates = new Map<number, { left: number; opened: Promise<void>; open: () => void }>();
  /** The first token that did not arrive. */
  #hole = Number.POSITIVE_INFINITY;

  constructor(
    context: StoreWorkerContext,
    job: LoadJob,
    sources: readonly Source[],
    groups: readonly LoadGroup[],
    aside: Aside,
    limiter: Limiter,
  ) {
    this.#context = context;
    this.job = job;
    this.#groups = groups;
    this.#aside = aside;
    this.#parts = job.groups.flatMap((blocks) => this.#cut(blocks, sources));
    if (!job.async) this.#prepareGates();
    const limits = { signal: this.#controller.signal, timeoutMs: context.loadTimeoutMs };
    this.done = limiter
      .run(() => this.#run(), limits)
      .catch((error) => {
        if (!this.aborted) context.onError(error);
        this.#lose(0);
      })
      .then(() => this.#judge());
  }

  /** Gives the load up; `done` says when it has let go of the cache. */
  abort(): void {
    this.aborted = true;
    this.#controller.abort();
  }

  /** Resolves when the layer may be read, or the load has ended. */
  async layer(layer: number): Promise<void> {
    const gate = this.#gates.get(layer);
    await (gate === undefined ? this.done : Promise.race([gate.opened, this.done]));
  }

  /** A layer is there when every part has read it; the last one, and bytes read aside, wait for the verdict. */
  #prepareGates(): void {
    if (this.#parts.some(({ slice }) => !slice.whole)) return;
    for (const { blocks } of this.#parts) {
      for (const layer of this.#groups[blocks.group].layers) {
        const gate = this.#gates.get(layer);
        if (gate) gate.left++;
        else this.#gates.set(layer, { left: 1, ...deferred() });
      }
    }
    this.#gates.delete(Math.max(...this.#gates.keys()));
  }

  #cut(blocks: LoadBlocks, sources: readonly Source[]): Part[] {
    const bySource = new Map<number, number[]>();
    for (const [index, source] of blocks.sources.entries()) {
      const own = bySource.get(source);
      if (own) own.push(index);
      else bySource.set(source, [index]);
    }
    return [...bySource].flatMap(([source, indices]) =>
      sources[source].groups[blocks.group].flatMap((slice) => {
        const room = slice.whole ? this.#context.batchBytes : this.#aside.bytes(slice.bytes);
        const count = Math.min(MAX_OBJECTS, Math.max(1, Math.floor(room / slice.bytes)));
        const parts: Part[] = [];
        for (let at = 0; at < indices.length; at += count) {
          parts.push({ slice, blocks, indices: indices.slice(at, at + count) });
        }
        return parts;
      }),
    );
  }

  async #run(): Promise<void> {
    if (!(await this.#context.attached()) || this.aborted) this.#lose(0);
    else if (this.job.async) for (const part of this.#parts) await this.#load(part);
    else await Promise.all(this.#parts.map((part) => this.#load(part)));
  }

  #judge(): void {
    const { stats } = this.#context;
    this.failed = this.aborted ? [] : this.#lost();
    if (this.aborted) stats.abortedLoads++;
    stats.failedLoadBlocks += this.failed.length;
  }

  /** Blocks that hold a token behind the first hole. */
  #lost(): number[] {
    if (this.#hole === Number.POSITIVE_INFINITY) return [];
    const endOnly = this.job.groups.some(({ group }) => this.#groups[group].endOnly);
    const from = endOnly ? 0 : this.#hole;
    return this.job.groups.flatMap(({ group, positions, blockIds }) =>
      blockIds.filter((_, index) => (positions[index] + 1) * this.#groups[group].blockSize > from),
    );
  }

  #lose(token: number): void {
    this.#hole = Math.min(this.#hole, token);
  }

  async #load(part: Part): Promise<void> {
    const { blocks, slice } = part;
    const { blockSize } = this.#groups[blocks.group];
    const token = (index: number) => blocks.positions[index] * blockSize;
    // Behind a hole nothing is of use any more.
    const indices = part.indices.filter((index) => token(index) < this.#hole);
    if (indices.length === 0) return;
    let good: number[] = [];
    try {
      good = slice.whole
        ? await this.#read(part, indices)
        : await this.#aside.use(slice.bytes, (segment) => this.#read(part, indices, segment));
    } catch (error) {
      // Whatever it was, the blocks can be computed.
      if (!this.aborted) this.#context.onError(error);
    }
    const arrived = new Set(good);
    for (const index of indices) if (!arrived.has(index)) this.#lose(token(index));
    this.#context.stats.loadedBlocks += good.length;
    this.#context.stats.loadedBytes += good.length * slice.bytes;
  }

  /** Reads blocks of one slice; those that arrived whole and unchanged. */
  async #read({ slice, blocks }: Part, indices: readonly number[], segment?: number): Promise<number[]> {
    const { store, tenant, loadTimeoutMs } = this.#context;
    const limits = { signal: this.#controller.signal, timeoutMs: loadTimeoutMs };
    const width = blocks.hashes.length / blocks.blockIds.length;
    const keys = blockKeys([slice.prefix], pickHashes(blocks.hashes, width, indices), width);
    const batch = await store.openGet(keys, { stride: slice.bytes, tenant, ...limits });
    const objects = [...indices.keys()].filter((at) => batch.statuses[at] === STATUS.ok);
    const fitting = objects.filter((at) => batch.sizes[at] === slice.bytes);
    if (fitting.length < objects.length) store.countMiss('size', objects.length - fitting.length);
    const ids = fitting.map((at) => blocks.blockIds[indices[at]]);
    let statuses: Int32Array;
    try {
      if (segment !== undefined) {
        const plan = slice.asidePlans(segment).read;
        await batch.read(plan.describe({ sourceBlocks: fitting, destinationBlocks: [...fitting.keys()] }), limits);
      } else if (this.job.async) {
        await batch.read(slice.plan().describe({ sourceBlocks: fitting, destinationBlocks: ids }), limits);
      } else {
        for (const layer of this.#groups[blocks.group].layers) {
          await batch.read(slice.plan(layer).describe({ sourceBlocks: fitting, destinationBlocks: ids }), limits);
          this.#passed(layer);
        }
      }
    } finally {
      statuses = await batch.finish();
    }
    const sound = [...fitting.keys()].filter((at) => statuses[fitting[at]] === STATUS.ok);
    if (segment !== undefined && sound.length > 0) {
      const plan = slice.asidePlans(segment).scatter;
      const copies = plan.describe({ sourceBlocks: sound, destinationBlocks: sound.map((at) => ids[at]) });
      // The bytes were verified aside, and this copy stays in the process.
      await store.transfer.copy(copies, { ...limits, verify: 'off' });
    }
    return sound.map((at) => indices[fitting[at]]);
  }

  #passed(layer: number): void {
    const gate = this.#gates.get(layer);
    if (gate && --gate.left === 0) gate.open();
  }
}

function deferred(): { opened: Promise<void>; open: () => void } {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
