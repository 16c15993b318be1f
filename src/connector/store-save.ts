/**
 * Saving blocks of one group from one rank's cache: the blocks that were full before the step at once, those that the step
 * fills layer by layer as the forward pass leaves them. Nothing is visible before the last layer of a block is there.
 */
import { joinDescriptors } from '../core/descriptors.js';
import { STATUS } from '../master/status.js';
import type { CallLimits } from '../transfer/transfer.js';
import { blockKeys } from './blocks.js';
import type { SaveJob } from './store-metadata.js';
import { MAX_OBJECTS } from './store-objects.js';
import type { Target } from './store-sources.js';
import { type Limiter, pickHashes, type StoreWorkerContext } from './store-worker-context.js';

/** Says when a layer of the step has been computed. */
export class ForwardPass {
  readonly #layers = new Map<number, { computed: Promise<boolean>; settle: (computed: boolean) => void }>();
  readonly #computed = new Set<number>();
  #over = false;

  /** True when the layer has been computed; false when the pass ended without. */
  layer(layer: number): Promise<boolean> {
    return this.#gate(layer).computed;
  }

  computed(layer: number): void {
    this.#computed.add(layer);
    this.#gate(layer).settle(true);
  }

  /** Those at the front of `layers` that are computed by now. */
  front(layers: readonly number[]): readonly number[] {
    const end = layers.findIndex((layer) => !this.#computed.has(layer));
    return end < 0 ? layers : layers.slice(0, end);
  }

  /** The pass has ended. A layer that was not named was not computed: engines give a step up whose load failed. */
  end(): void {
    this.#over = true;
    for (const { settle } of this.#layers.values()) settle(false);
  }

  #gate(layer: number) {
    let gate = this.#layers.get(layer);
    if (gate === undefined) {
      let settle!: (computed: boolean) => void;
      const computed = new Promise<boolean>((resolve) => {
        settle = resolve;
      });
      this.#layers.set(layer, (gate = { computed, settle }));
      if (this.#over) settle(false);
    }
    return gate;
  }
}

type SaveLimits = Required<CallLimits>;

/** Blocks of a batch with their hashes. */
export interface SaveBlocks {
  readonly blockIds: readonly number[];
  /** By block: it was full before the step. */
  readonly ready: readonly boolean[];
  readonly hashes: Uint8Array;
  readonly width: number;
  readonly requestIds: ReadonlySet<string>;
}

export class SaveBatch {
  readonly blocks: SaveBlocks;
  /** Resolves, never rejects, when nothing is read from the cache any more. */
  readonly left: Promise<void>;
  /** Resolves, never rejects, when the objects are visible or were given up. */
  readonly done: Promise<void>;
  /** Blocks, by index, that are in the store when `done` has resolved. */
  stored: readonly number[] = [];
  readonly #context: StoreWorkerContext;
  readonly #target: Target;
  readonly #layers: readonly number[];
  readonly #pass: ForwardPass;
  readonly #controller = new AbortController();

  constructor(
    context: StoreWorkerContext,
    target: Target,
    layers: readonly number[],
    blocks: SaveBlocks,
    pass: ForwardPass,
    limiter: Limiter,
  ) {
    this.#context = context;
    this.#target = target;
    this.#layers = layers;
    this.blocks = blocks;
    this.#pass = pass;
    let leave!: () => void;
    this.left = new Promise((resolve) => {
      leave = resolve;
    });
    const limits = { signal: this.#controller.signal, timeoutMs: context.saveTimeoutMs };
    // Blocks are kept for those that wait their turn too: behind a store that hangs, not for ever.
    const run = limiter.run(() => this.#run(limits, leave), limits);
    this.done = run
      .catch((error) => {
        // A block that is not saved is computed again by whoever needs it.
        if (!limits.signal.aborted) context.onError(error);
        context.stats.failedSaveBlocks += blocks.blockIds.length;
      })
      .finally(leave);
  }

  /** Saves nothing, unless it is all but done; `left` and `done` say when it has ended. */
  giveUp(): void {
    this.#controller.abort();
  }

  async #run(limits: SaveLimits, leave: () => void): Promise<void> {
    const { store, tenant, put, attached, stats } = this.#context;
    const { blockIds, ready, hashes, width } = this.blocks;
    if (!(await attached())) {
      stats.failedSaveBlocks += blockIds.length;
      return;
    }
    const { prefix, bytes } = this.#target;
    const keys = blockKeys([prefix], hashes, width);
    const batch = await store.openPut(keys, bytes, { ...put, stride: bytes, tenant, ...limits });
    const open = [...blockIds.keys()].filter((at) => batch.statuses[at] === STATUS.ok);
    let statuses: Int32Array;
    try {
      await this.#write(
        batch,
        open.filter((at) => ready[at]),
        this.#layers,
        limits,
      );
      const fresh = open.filter((at) => !ready[at]);
      if (fresh.length > 0) {
        // As many layers at once as the pass has left behind: each write has a price of its own, not only its bytes.
        for (let next = this.#layers; next.length > 0 && (await this.#pass.layer(next[0])); ) {
          const layers = this.#pass.front(next);
          await this.#write(batch, fresh, layers, limits);
          next = next.slice(layers.length);
        }
      }
      leave();
      statuses = await batch.commit();
    } catch (error) {
      // What is still read of the blocks goes into objects that nobody will see.
      leave();
      await batch.abort();
      throw error;
    }
    const isStored = (status: number) => status === STATUS.ok || status === STATUS.exists;
    this.stored = [...blockIds.keys()].filter((at) => isStored(statuses[at]));
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
    layers: readonly number[],
    limits: SaveLimits,
  ): Promise<void> {
    if (indices.length === 0) return;
    const blocks = { sourceBlocks: indices.map((at) => this.blocks.blockIds[at]), destinationBlocks: indices };
    // Layer by layer through all blocks: what is copied at once are short pieces of many objects, which processors share better
    // than few objects whole, as the pieces of one are summed in their order.
    const byLayer = joinDescriptors(layers.map((layer) => this.#target.plan(layer).describe(blocks)));
    // Where all layers of a block lie together it is one piece, and would be cut into one for each layer.
    const whole = layers === this.#layers ? this.#target.plan().describe(blocks) : byLayer;
    await batch.write(whole.count < byLayer.count ? whole : byLayer, limits);
  }
}

/** Puts the jobs of one group together into batches of at most `batchBytes`; a rank's share of what several ranks hold. */
export function batchesOf(jobs: readonly SaveJob[], target: Target, batchBytes: number): SaveBlocks[] {
  const limit = Math.min(MAX_OBJECTS, Math.max(1, Math.floor(batchBytes / target.bytes)));
  const batches: SaveBlocks[] = [];
  let open = newBatch();
  const flush = () => {
    if (open.blockIds.length > 0) batches.push({ ...open, hashes: joined(open.parts) });
    open = newBatch();
  };
  for (const job of jobs) {
    open.width = job.hashes.length / job.blockIds.length;
    const mine = [...job.positions.keys()].filter((index) => job.positions[index] % target.copies === target.place);
    for (let at = 0; at < mine.length; ) {
      const taken = mine.slice(at, at + limit - open.blockIds.length);
      open.parts.push(pickHashes(job.hashes, open.width, taken));
      open.blockIds.push(...taken.map((index) => job.blockIds[index]));
      open.ready.push(...taken.map((index) => index < job.ready));
      open.requestIds.add(job.requestId);
      at += taken.length;
      if (open.blockIds.length < limit) continue;
      const { width } = open;
      flush();
      open.width = width;
    }
  }
  flush();
  return batches;
}

function newBatch() {
  const [blockIds, ready, parts]: [number[], boolean[], Uint8Array[]] = [[], [], []];
  return { blockIds, ready, parts, requestIds: new Set<string>(), width: 0 };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
