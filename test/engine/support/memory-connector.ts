/**
 * A connector over a Map, small enough to be seen to be right: blocks are saved by layer, a block is there once every rank
 * has saved every layer of it, and loads copy it back. It checks that it is called in the order of src/connector/api.ts,
 * and it can be told to fail.
 */
import {
  type BlockHashes,
  blockHashes,
  type ConnectorOutput,
  type EngineInfo,
  type KvCaches,
  type KvConnector,
  type KvLayout,
  type KvRequest,
  type SchedulerConnector,
  type SchedulerOutput,
  type WorkerConnector,
} from 'mooncake-ts';
import * as assert from 'uvu/assert';

type KvGroup = KvLayout['groups'][number];

interface Transferred {
  readonly requestId: string;
  readonly hashes: readonly string[];
  readonly blocks: readonly number[];
}

interface Metadata {
  readonly loads: readonly (Transferred & { readonly async: boolean })[];
  readonly saves: readonly Transferred[];
}

export interface MemoryConnectorOptions {
  /** Loads go on while other requests run. */
  async?: boolean;
  /** What is already saved: the `saved` of another connector. */
  saved?: Map<string, Uint8Array[]>;
  save?: boolean;
  load?: boolean;
  /** How many times the answer to a lookup is "not known yet". */
  unknown?: number;
  /** Offers the whole prompt, last token included, where it has it. */
  whole?: boolean;
  /** Steps for which a finished request's blocks are kept. */
  keepSteps?: number;
  /** Steps that an asynchronous load takes. */
  loadSteps?: number;
  /** Whether a block's load fails, by rank, layer and its place in the load. */
  fails?: (rank: number, layer: number, place: number) => boolean;
}

export class MemoryConnector implements KvConnector {
  readonly name = 'memory';
  /** By rank and block hash: a block's bytes, one piece a layer. */
  readonly saved: Map<string, Uint8Array[]>;
  /** Calls of either half, those of the workers with their rank. */
  readonly calls: string[] = [];
  readonly options: MemoryConnectorOptions;
  /** Tensor-parallel ranks of the engine that it is attached to. */
  ranks = 0;

  constructor(options: MemoryConnectorOptions = {}) {
    this.options = options;
    this.saved = options.saved ?? new Map();
  }

  createScheduler(engine: EngineInfo): SchedulerConnector {
    this.ranks = engine.tensorParallelSize ?? 1;
    return new MemoryScheduler(this, engine);
  }

  createWorker(_engine: EngineInfo, rank: number): WorkerConnector {
    return new MemoryWorker(this, rank);
  }

  has(hash: string): boolean {
    return Array.from({ length: this.ranks }, (_, rank) => this.saved.has(`${rank} ${hash}`)).every(Boolean);
  }
}

class MemoryScheduler implements SchedulerConnector {
  readonly #connector: MemoryConnector;
  readonly #engine: EngineInfo;
  readonly #requests = new Map<string, { request: KvRequest; blocks: number[]; asked: number; computed: number }>();
  #loads: Metadata['loads'][number][] = [];
  #kept = 0;

  constructor(connector: MemoryConnector, engine: EngineInfo) {
    this.#connector = connector;
    this.#engine = engine;
  }

  #log(call: string): void {
    this.#connector.calls.push(call);
  }

  #state(requestId: string) {
    const state = this.#requests.get(requestId);
    assert.ok(state, `${requestId} was never announced`);
    return state;
  }

  #hashes(request: KvRequest): BlockHashes {
    return blockHashes(request.tokens, { ...this.#engine.hash, extraKeys: request.extraKeys });
  }

  onNewRequest(request: KvRequest): void {
    this.#log(`new ${request.requestId}`);
    assert.not(this.#requests.has(request.requestId));
    this.#requests.set(request.requestId, { request, blocks: [], asked: 0, computed: 0 });
  }

  getNumNewMatchedTokens(request: KvRequest, numComputedTokens: number): [number | null, boolean] {
    const { unknown = 0, load = true, async = false, whole = false } = this.#connector.options;
    const state = this.#state(request.requestId);
    if (state.asked++ < unknown) return [null, false];
    this.#log(`match ${request.requestId} ${numComputedTokens}`);
    assert.is(numComputedTokens % this.#engine.hash.blockSize, 0);
    state.computed = numComputedTokens;
    if (!load) return [0, false];
    const { blockSize } = this.#engine.hash;
    const hashes = this.#hashes(request).toHex();
    let end = numComputedTokens / blockSize;
    while (end < hashes.length && this.#connector.has(hashes[end])) end++;
    if (!whole && end * blockSize === request.tokens.length) end--;
    return [Math.max(0, end * blockSize - numComputedTokens), async];
  }

  updateStateAfterAlloc(request: KvRequest, [blocks]: readonly (readonly number[])[], external: number): void {
    this.#log(`alloc ${request.requestId} ${external}`);
    const { blockSize } = this.#engine.hash;
    const { computed } = this.#state(request.requestId);
    assert.ok(blocks.length * blockSize >= computed + external, 'too few blocks for what is to be loaded');
    if (external === 0) return;
    const [from, to] = [computed / blockSize, (computed + external) / blockSize];
    this.#loads.push({
      requestId: request.requestId,
      async: this.#connector.options.async ?? false,
      hashes: this.#hashes(request).toHex().slice(from, to),
      blocks: blocks.slice(from, to),
    });
  }

  buildConnectorMeta(output: SchedulerOutput): Metadata {
    this.#log('meta');
    for (const { requestId, blockIds } of output.newRequests) this.#state(requestId).blocks = [...blockIds[0]];
    for (const { requestId, newBlockIds } of output.cachedRequests)
      this.#state(requestId).blocks.push(...newBlockIds[0]);
    const saves: Transferred[] = [];
    const { blockSize } = this.#engine.hash;
    for (const { requestId, numComputedTokens } of [...output.newRequests, ...output.cachedRequests]) {
      const { request, blocks } = this.#state(requestId);
      const end = numComputedTokens + output.numScheduledTokens[requestId];
      const [from, to] = [Math.floor(numComputedTokens / blockSize), Math.floor(end / blockSize)];
      assert.ok(blocks.length * blockSize >= end, 'too few blocks for what is to be computed');
      const hashes = this.#hashes(request).toHex().slice(from, to);
      saves.push({ requestId, hashes, blocks: blocks.slice(from, to) });
    }
    for (const requestId of output.finishedRequestIds) assert.not(this.#requests.has(requestId));
    const loads = this.#loads;
    this.#loads = [];
    return structuredClone({ loads, saves: this.#connector.options.save === false ? [] : saves });
  }

  updateConnectorOutput({ finishedSending }: ConnectorOutput): void {
    this.#log('output');
    this.#kept -= finishedSending.length;
  }

  requestFinished(request: KvRequest): [boolean, { transfer_id: string } | null] {
    this.#log(`end ${request.requestId}`);
    assert.ok(this.#requests.delete(request.requestId));
    this.#loads = this.#loads.filter(({ requestId }) => requestId !== request.requestId);
    const delay = (this.#connector.options.keepSteps ?? 0) > 0;
    if (delay) this.#kept++;
    return [delay, { transfer_id: request.requestId }];
  }

  hasPendingWork(): boolean {
    return false;
  }

  setHandshakeMetadata(metadata: readonly unknown[]): void {
    this.#log(`handshake ${metadata.join()}`);
  }

  stats() {
    return { kept: this.#kept };
  }

  async shutdown(): Promise<void> {
    this.#log('shutdown');
  }
}

class MemoryWorker implements WorkerConnector {
  readonly #connector: MemoryConnector;
  readonly #rank: number;
  #memory!: Uint8Array;
  #group!: KvGroup;
  #metadata: Metadata | undefined;
  #saving = new Map<string, Uint8Array[]>();
  readonly #loading: { load: Transferred; steps: number }[] = [];
  readonly #kept: { requestId: string; steps: number }[] = [];
  #failed: number[] = [];

  constructor(connector: MemoryConnector, rank: number) {
    this.#connector = connector;
    this.#rank = rank;
  }

  #log(call: string): void {
    this.#connector.calls.push(`${this.#rank}: ${call}`);
  }

  /** A block's bytes in a layer: keys and values of its tokens, which lie side by side. */
  #bytes(layer: number, block: number): Uint8Array {
    const { places, block: stride } = this.#group.tensors.get('k') as NonNullable<
      ReturnType<KvGroup['tensors']['get']>
    >;
    const at = places[layer].offset + block * stride;
    return this.#memory.subarray(at, at + stride);
  }

  #copy({ hashes, blocks }: Transferred, layer: number): void {
    for (const [place, block] of blocks.entries()) {
      const [piece, to] = [
        this.#connector.saved.get(`${this.#rank} ${hashes[place]}`)?.[layer],
        this.#bytes(layer, block),
      ];
      const fails = piece === undefined || this.#connector.options.fails?.(this.#rank, layer, place);
      if (fails) {
        to.fill(0xff);
        this.#failed.push(block);
      } else {
        to.set(piece);
      }
    }
  }

  registerKvCaches(caches: KvCaches): void {
    this.#log('register');
    [this.#memory] = caches.memories as readonly Uint8Array[];
    this.#group = caches.layout([3]).group();
  }

  getHandshakeMetadata(): unknown {
    return `rank ${this.#rank}`;
  }

  bindConnectorMetadata(metadata: unknown): void {
    this.#log('bind');
    this.#metadata = metadata as Metadata;
  }

  clearConnectorMetadata(): void {
    this.#log('clear');
    this.#metadata = undefined;
  }

  async handlePreemptions(requestIds: readonly string[]): Promise<void> {
    this.#log('preempt');
    assert.ok(requestIds.length > 0);
  }

  startLoadKv(): void {
    this.#log('load');
    assert.ok(this.#metadata);
    const { loadSteps = 2 } = this.#connector.options;
    for (const load of this.#metadata.loads) if (load.async) this.#loading.push({ load, steps: loadSteps });
  }

  async waitForLayerLoad(layer: number): Promise<void> {
    this.#log(`wait ${layer}`);
    await new Promise(setImmediate);
    for (const load of this.#metadata?.loads ?? []) if (!load.async) this.#copy(load, layer);
  }

  saveKvLayer(layer: number): void {
    this.#log(`save ${layer}`);
    for (const { hashes, blocks } of this.#metadata?.saves ?? []) {
      for (const [place, hash] of hashes.entries()) {
        const pieces = this.#saving.get(hash) ?? [];
        this.#saving.set(hash, pieces);
        pieces[layer] = this.#bytes(layer, blocks[place]).slice();
      }
    }
  }

  async waitForSave(): Promise<void> {
    this.#log('waitForSave');
    for (const [hash, pieces] of this.#saving) {
      if (pieces.length === this.#group.layers.length) this.#connector.saved.set(`${this.#rank} ${hash}`, pieces);
    }
    this.#saving = new Map();
  }

  getFinished(finished: readonly string[]): { sending: string[]; receiving: string[] } {
    this.#log('finished');
    const { keepSteps = 0 } = this.#connector.options;
    // Ranks take different numbers of steps, so that what counts is the last of them.
    if (keepSteps > 0) this.#kept.push(...finished.map((requestId) => ({ requestId, steps: keepSteps + this.#rank })));
    const ready = this.#loading.filter((entry) => entry.steps-- + this.#rank <= 0);
    for (const entry of ready) {
      this.#loading.splice(this.#loading.indexOf(entry), 1);
      for (const layer of this.#group.layers) this.#copy(entry.load, layer);
    }
    const sent = this.#kept.filter((entry) => entry.steps-- <= 0);
    for (const entry of sent) this.#kept.splice(this.#kept.indexOf(entry), 1);
    return {
      sending: sent.map(({ requestId }) => requestId),
      receiving: ready.map(({ load }) => load.requestId),
    };
  }

  getBlockIdsWithLoadErrors(): number[] {
    const failed = this.#failed;
    this.#failed = [];
    return failed;
  }

  stats() {
    return { workers: 1 };
  }

  async shutdown(): Promise<void> {
    this.#log('shutdown');
  }
}
