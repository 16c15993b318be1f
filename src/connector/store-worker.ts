/**
 * The store connector's worker half: moves blocks between one rank's KV cache and the store. Loads and saves run beside
 * the engine; it hears of them through getFinished. A block stays untouched until its save has left, because the
 * scheduler half keeps finished requests' blocks and `handlePreemptions` waits for those of preempted ones.
 */
import { errors } from '../core/errors.js';
import type { KvLayout } from '../core/layout.js';
import type { KvCaches, SavedBlocks, WorkerConnector } from './api.js';
import type { Namespace } from './namespace.js';
import { Aside } from './store-aside.js';
import { LoadTask } from './store-load.js';
import { type NamespaceClaim, NO_WORK, type StoreHandshake, type StoreStep } from './store-metadata.js';
import { type ObjectLayout, objectLayout } from './store-objects.js';
import { batchesOf, ForwardPass, SaveBatch } from './store-save.js';
import { type Source, sourcesOf, type Target, targetsOf } from './store-sources.js';
import { Limiter, pickHashes, type StoreWorkerContext } from './store-worker-context.js';

export interface StoreWorkerOptions {
  readonly rank: number;
  readonly namespace: Namespace;
  readonly peerSizes: readonly number[];
  readonly maxLoads: number;
  readonly maxSaves: number;
  readonly asideBytes: number;
  /** Keep the hashes of what was saved, for `takeSaved`. */
  readonly reportSaved: boolean;
  /** What this rank claims of the namespace. */
  readonly claim: (objects: ObjectLayout) => NamespaceClaim;
  /** Takes note of the claim and has it checked; `context.attached` gives the verdict. */
  readonly attach: (claim: NamespaceClaim) => void;
}

/** Groups whose blocks an engine may give to others while the request runs: what a window has left, a state replaced. */
const RECYCLED = new Set(['sliding', 'state']);

/** How long an engine's step waits for saves of blocks that it wants back, in ms. */
const MAX_STALL_MS = 1000;

export class StoreWorker implements WorkerConnector {
  readonly #context: StoreWorkerContext;
  readonly #options: StoreWorkerOptions;
  readonly #loadLimit: Limiter;
  readonly #saveLimit: Limiter;
  readonly #aside: Aside;
  #layout: KvLayout | undefined;
  readonly #segments: number[] = [];
  #sources: readonly Source[] = [];
  #targets: readonly Target[] = [];
  #step: StoreStep = NO_WORK;
  #pass = new ForwardPass();
  readonly #loads = new Map<string, LoadTask>();
  /** Loads that the step waits for, layer by layer. */
  #stepLoads: LoadTask[] = [];
  readonly #saves = new Set<{ batch: SaveBatch; group: number }>();
  readonly #releasing = new Set<string>();
  #received: string[] = [];
  #failed: number[] = [];
  readonly #saved: SavedBlocks[] = [];

  constructor(context: StoreWorkerContext, options: StoreWorkerOptions) {
    this.#context = context;
    this.#options = options;
    this.#loadLimit = new Limiter(options.maxLoads);
    this.#saveLimit = new Limiter(options.maxSaves);
    this.#aside = new Aside(context.store.transfer, options.asideBytes);
  }

  registerKvCaches(caches: KvCaches): void {
    if (this.#layout !== undefined) throw errors.invalidArgument('caches', caches, 'registered once');
    const { transfer } = this.#context.store;
    const { namespace, peerSizes, attach, claim } = this.#options;
    // One by one: `shutdown` lets go of those before one that is refused.
    for (const memory of caches.memories) this.#segments.push(transfer.register(memory, { access: 'read' }));
    const layout = caches.layout(this.#segments);
    this.#sources = sourcesOf(layout, namespace, namespace.integrity === 'strict' ? peerSizes : []);
    this.#targets = targetsOf(layout, namespace);
    this.#layout = layout;
    attach(claim(objectLayout(layout)));
  }

  getHandshakeMetadata(): StoreHandshake {
    const layout = this.#registered();
    return {
      connector: 'MooncakeStoreConnector',
      version: 1,
      rank: this.#options.rank,
      claim: this.#options.claim(objectLayout(layout)),
      groups: layout.groups.map(({ kind, blockSize, window, nullBlock }, group) => ({
        kind,
        blockSize,
        window,
        nullBlock,
        objectBytes: this.#targets[group].bytes,
      })),
      sources: this.#sources.map(({ size, groups }) => ({
        size,
        prefixes: groups.map((slices) => slices.map(({ prefix }) => prefix)),
      })),
    };
  }

  bindConnectorMetadata(metadata: unknown): void {
    this.#registered();
    this.#step = metadata as StoreStep;
    this.#pass.end();
    this.#pass = new ForwardPass();
    for (const id of this.#step.aborted) this.#loads.get(id)?.abort();
    this.#received.push(...this.#step.cancelled);
    for (const id of this.#step.release) this.#releasing.add(id);
  }

  clearConnectorMetadata(): void {
    this.#pass.end();
    // Ended by now, but in a step that failed: its requests may lose their blocks next.
    for (const task of this.#stepLoads) task.abort();
    this.#step = NO_WORK;
    this.#stepLoads = [];
  }

  async handlePreemptions(requestIds: readonly string[]): Promise<void> {
    const ending = requestIds.flatMap((id) => {
      const load = this.#loads.get(id);
      load?.abort();
      return load ? [load.done] : [];
    });
    const saves = [...this.#saves].map(({ batch }) => batch);
    const theirs = saves.filter(({ blocks }) => requestIds.some((id) => blocks.requestIds.has(id)));
    await Promise.all([...ending, left(theirs)]);
  }

  startLoadKv(): void {
    const { groups } = this.#registered();
    const parts = groups.map(({ blockSize, layers, kind }) => ({
      blockSize,
      layers: [...layers].sort((a, b) => a - b),
      endOnly: RECYCLED.has(kind),
    }));
    this.#stepLoads = [];
    for (const job of this.#step.loads) {
      const task = new LoadTask(this.#context, job, this.#sources, parts, this.#aside, this.#loadLimit);
      this.#loads.set(job.requestId, task);
      if (!job.async) this.#stepLoads.push(task);
      task.done.then(() => {
        this.#loads.delete(job.requestId);
        this.#failed.push(...task.failed);
        if (job.async) this.#received.push(job.requestId);
      });
    }
    for (const [group, target] of this.#targets.entries()) {
      const jobs = this.#step.saves.filter((job) => job.group === group);
      if (jobs.length === 0 || target.bytes === 0) continue;
      for (const blocks of batchesOf(jobs, target, this.#context.batchBytes)) {
        const { layers } = parts[group];
        const batch = new SaveBatch(this.#context, target, layers, blocks, this.#pass, this.#saveLimit);
        const save = { batch, group };
        this.#saves.add(save);
        batch.done.then(() => {
          this.#saves.delete(save);
          if (this.#options.reportSaved) this.#report(save);
        });
      }
    }
  }

  async waitForLayerLoad(layer: number): Promise<void> {
    await Promise.all(this.#stepLoads.map((task) => task.layer(layer)));
  }

  saveKvLayer(layer: number): void {
    this.#pass.computed(layer);
  }

  async waitForSave(): Promise<void> {
    this.#pass.end();
    // What was not read by layer is loaded by now, so that its errors belong to this step.
    await Promise.all(this.#stepLoads.map(({ done }) => done));
    const { groups } = this.#registered();
    const recycled = [...this.#saves].filter(({ group }) => RECYCLED.has(groups[group].kind));
    await left(recycled.map(({ batch }) => batch));
  }

  takeSaved(): SavedBlocks[] {
    return this.#saved.splice(0);
  }

  #report({ batch: { blocks, stored }, group }: { batch: SaveBatch; group: number }): void {
    if (stored.length === 0) return;
    const ranks = this.#registered().tensorParallel.size / this.#targets[group].copies;
    this.#saved.push({ group, ranks, hashes: pickHashes(blocks.hashes, blocks.width, stored) });
  }

  async savesEnded(): Promise<void> {
    await Promise.all([...this.#saves].map(({ batch }) => batch.done));
  }

  getFinished(): { sending: string[]; receiving: string[] } {
    const receiving = this.#received;
    this.#received = [];
    const sending = [...this.#releasing].filter(
      (id) => ![...this.#saves].some(({ batch }) => batch.blocks.requestIds.has(id)),
    );
    for (const id of sending) this.#releasing.delete(id);
    return { sending, receiving };
  }

  getBlockIdsWithLoadErrors(): number[] {
    const failed = this.#failed;
    this.#failed = [];
    return failed;
  }

  stats(): Record<string, number> {
    return { ...this.#context.stats };
  }

  async shutdown(): Promise<void> {
    this.#pass.end();
    for (const task of this.#loads.values()) task.abort();
    for (const { batch } of this.#saves) batch.giveUp();
    await Promise.all([...this.#loads.values()].map(({ done }) => done));
    await Promise.all([...this.#saves].map(({ batch }) => batch.done));
    await this.#aside.close();
    const { transfer } = this.#context.store;
    await Promise.all(this.#segments.splice(0).map((segment) => transfer.unregister(segment)));
  }

  #registered(): KvLayout {
    if (this.#layout === undefined) throw errors.closed('the KV cache (registerKvCaches comes first)');
    return this.#layout;
  }
}

/** Resolves when these saves read nothing of the cache any more; those that take long are given up. */
async function left(batches: readonly SaveBatch[]): Promise<void> {
  if (batches.length === 0) return;
  const timer = setTimeout(() => {
    for (const batch of batches) batch.giveUp();
  }, MAX_STALL_MS);
  await Promise.all(batches.map((batch) => batch.left));
  clearTimeout(timer);
}
