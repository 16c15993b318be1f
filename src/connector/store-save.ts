/**
 * Saving blocks of one group from one rank's cache: the blocks that were full before the step at once, those that the step
 * fills layer by layer as the forward pass leaves them. Nothing is visible before the last layer of a block is there.
 */
import { STATUS } from '../master/status.js';
import { blockKeys } from './blocks.js';
import type { SaveJob } from './store-metadata.js';
import { MAX_OBJECTS } from './store-objects.js';
import type { Target } from './store-sources.js';
import { type Limiter, pickHashes, type StoreWorkerContext } from './store-worker-context.js';

/** Says when a layer of the step has been computed. */
export class ForwardPass {
  readonly #layers = new Map<number, { computed: Promise<boolean>; settle: (computed: boolean) => void }>();
  #over: boolean | undefined;

  /** True when the layer has been computed; false when the pass ended without. */
  async layer(layer: number): Promise<boolean> {
    return this.#over ?? this.#gate(layer).computed;
  }

  computed(layer: number): void {
    this.#gate(layer).settle(true);
  }

  /** The pass has ended: `complete` or given up. Layers that were not named count alike. */
  end(complete: boolean): void {
    this.#over ??= complete;
    for (const { settle } of this.#layers.values()) settle(this.#over);
  }

  #gate(layer: number) {
    let gate = this.#layers.get(layer);
    if (gate === undefined) {
      let settle!: (computed: boolean) => void;
      const computed = new Promise<boolean>((resolve) => {
        settle = resolve;
      });
      this.#layers.set(layer, (gate = { computed, settle }));
    }
    return gate;
  }
}

interface Block {
  readonly blockId: number;
  readonly ready: boolean;
}

export class SaveBatch {
  readonly requestIds: ReadonlySet<string>;
  /** Resolves, never rejects, when nothing is read from the cache any more. */
  readonly left: Promise<void>;
  /** Resolves, never rejects, when the objects are visible or were given up. */
  readonly done: Promise<void>;
  readonly #context: StoreWorkerContext;
  readonly #target: Target;
  readonly #layers: readonly number[];
  readonly #blocks: readonly Block[];
  readonly #hashes: Uint8Array;
  readonly #width: number;
  readonly #pass: ForwardPass;

  constructor(
    context: StoreWorkerContext,
    target: Target,
    layers: readonly number[],
    { blocks, hashes, width, requestIds }: SaveBlocks,
    pass: ForwardPass,
    limiter: Limiter,
  ) {
    this.#context = context;
    this.#target = target;
    this.#layers = layers;
    this.#blocks = blocks;
    this.#hashes = hashes;
    this.#width = width;
    this.#pass = pass;
    this.requestIds = requestIds;
    let leave!: () => void;
    this.left = new Promise((resolve) => {
      leave = resolve;
    });
    this.done = limiter.run(async () => {
      try {
        await this.#run(leave);
      } catch {
        // The store has said why; a block that is not saved is computed again by whoever needs it.
        context.stats.failedSaveBlocks += blocks.length;
      } finally {
        leave();
      }
    });
  }

  async #run(leave: () => void): Promise<void> {
    const { store, tenant, put, saveTimeoutMs, attached, closed, stats } = this.#context;
    if (!(await attached)) {
      stats.failedSaveBlocks += this.#blocks.length;
      return;
    }
    const limits = { signal: closed, timeoutMs: saveTimeoutMs };
    const { prefix, bytes } = this.#target;
    const keys = blockKeys([prefix], this.#hashes, this.#width);
    const batch = await store.openPut(keys, bytes, { ...put, stride: bytes, tenant, ...limits });
    const open = [...this.#blocks.keys()].filter((at) => batch.statuses[at] === STATUS.ok);
    let statuses: Int32Array;
    try {
      await this.#write(
        batch,
        open.filter((at) => this.#blocks[at].ready),
        undefined,
        limits,
      );
      const fresh = open.filter((at) => !this.#blocks[at].ready);
      if (fresh.length > 0) {
        for (const layer of this.#layers) {
          if (!(await this.#pass.layer(layer))) break;
          await this.#write(batch, fresh, layer, limits);
        }
      }
      leave();
      statuses = await batch.commit();
    } catch (error) {
      await batch.abort();
      throw error;
    }
    for (const status of statuses) {
      if (status === STATUS.ok) stats.savedBlocks++;
      else if (status === STATUS.exists) stats.presentBlocks++;
      else stats.failedSaveBlocks++;
      if (status === STATUS.ok) stats.savedBytes += bytes;
    }
  }

  async #write(
    batch: Awaited<ReturnType<StoreWorkerContext['store']['openPut']>>,
    indices: readonly number[],
    layer: number | undefined,
    limits: { signal: AbortSignal; timeoutMs: number },
  ): Promise<void> {
    if (indices.length === 0) return;
    const sourceBlocks = indices.map((at) => this.#blocks[at].blockId);
    await batch.write(this.#target.plan(layer).describe({ sourceBlocks, destinationBlocks: indices }), limits);
  }
}

/** Blocks of a batch with their hashes. */
export interface SaveBlocks {
  readonly blocks: readonly Block[];
  readonly hashes: Uint8Array;
  readonly width: number;
  readonly requestIds: ReadonlySet<string>;
}

/** Puts the jobs of one group together into batches of at most `batchBytes`; a rank's share of what several ranks hold. */
export function batchesOf(jobs: readonly SaveJob[], target: Target, batchBytes: number): SaveBlocks[] {
  const limit = Math.min(MAX_OBJECTS, Math.max(1, Math.floor(batchBytes / target.bytes)));
  const batches: SaveBlocks[] = [];
  let blocks: Block[] = [];
  let parts: Uint8Array[] = [];
  let requestIds = new Set<string>();
  let width = 0;
  const flush = () => {
    if (blocks.length === 0) return;
    const hashes = new Uint8Array(blocks.length * width);
    let at = 0;
    for (const part of parts) {
      hashes.set(part, at);
      at += part.length;
    }
    batches.push({ blocks, hashes, width, requestIds });
    blocks = [];
    parts = [];
    requestIds = new Set();
  };
  for (const job of jobs) {
    width = job.hashes.length / job.blockIds.length;
    const mine = job.positions.flatMap((position, index) => (position % target.copies === target.place ? [index] : []));
    for (let at = 0; at < mine.length; ) {
      const taken = mine.slice(at, at + limit - blocks.length);
      parts.push(pickHashes(job.hashes, width, taken));
      blocks.push(...taken.map((index) => ({ blockId: job.blockIds[index], ready: index < job.ready })));
      requestIds.add(job.requestId);
      at += taken.length;
      if (blocks.length === limit) flush();
    }
  }
  flush();
  return batches;
}
