/**
 * The most obvious connector: a map from (engine's rank, tokens up to the end of a block) to the block's bytes, saved and
 * loaded whole and at once. It shows what the harness expects of a connector, and with `corrupt` what the harness must notice.
 */
import {
  type ConnectorOutput,
  type EngineInfo,
  type GroupBlocks,
  type KvCaches,
  type KvConnector,
  KvLayout,
  type KvRequest,
  type SchedulerConnector,
  type SchedulerOutput,
  TransferPlan,
  type WorkerConnector,
} from 'mooncake-ts';

export interface NaiveOptions {
  /** Loads while other requests run. Default false. */
  async?: boolean;
  /** Changes a byte of every block that is loaded. */
  corrupt?: boolean;
  /** Loads of blocks at this position of a request fail. */
  failAt?: number;
}

interface Job {
  requestId: string;
  blocks: { key: string; block: number; index: number }[];
}

interface Work {
  loads: Job[];
  saves: Job[];
}

export class NaiveConnector implements KvConnector {
  readonly name = 'naive';
  readonly objects = new Map<string, Uint8Array>();
  readonly options: NaiveOptions;

  constructor(options: NaiveOptions = {}) {
    this.options = options;
  }

  createScheduler(engine: EngineInfo): SchedulerConnector {
    return new NaiveScheduler(this, engine);
  }

  createWorker(_engine: EngineInfo, rank: number): WorkerConnector {
    return new NaiveWorker(this, rank);
  }
}

class NaiveScheduler implements SchedulerConnector {
  readonly #store: NaiveConnector;
  readonly #size: number;
  readonly #requests = new Map<string, { request: KvRequest; blocks: number[]; computed: number }>();
  /** Blocks that a request already had when it asked. */
  readonly #local = new Map<string, number>();
  #loads: Job[] = [];

  constructor(store: NaiveConnector, engine: EngineInfo) {
    this.#store = store;
    this.#size = engine.hash.blockSize;
  }

  #key(request: KvRequest, index: number): string {
    return Array.from(request.tokens.slice(0, (index + 1) * this.#size)).join();
  }

  onNewRequest(): void {}

  getNumNewMatchedTokens(request: KvRequest, computed: number): [number, boolean] {
    let blocks = 0;
    this.#local.set(request.requestId, computed / this.#size);
    const most = Math.floor((request.tokens.length - 1) / this.#size);
    while (blocks < most && this.#store.objects.has(`0 ${this.#key(request, blocks)}`)) blocks++;
    return [Math.max(0, blocks * this.#size - computed), this.#store.options.async ?? false];
  }

  updateStateAfterAlloc(request: KvRequest, [ids]: GroupBlocks, tokens: number): void {
    this.#requests.set(request.requestId, { request, blocks: [...ids], computed: 0 });
    if (tokens === 0) return;
    const from = this.#local.get(request.requestId)!;
    const all = ids.map((block, index) => ({ key: this.#key(request, index), block, index }));
    this.#loads.push({ requestId: request.requestId, blocks: all.slice(from, from + tokens / this.#size) });
  }

  buildConnectorMeta({ newRequests, cachedRequests, numScheduledTokens }: SchedulerOutput): Work {
    const saves: Job[] = [];
    const save = (id: string, computed: number) => {
      const own = this.#requests.get(id)!;
      const [from, to] = [computed, computed + numScheduledTokens[id]].map((tokens) => Math.floor(tokens / this.#size));
      const indices = Array.from({ length: to - from }, (_, at) => from + at);
      saves.push({
        requestId: id,
        blocks: indices.map((index) => ({ key: this.#key(own.request, index), block: own.blocks[index], index })),
      });
    };
    for (const { requestId, newBlockIds, numComputedTokens } of cachedRequests) {
      this.#requests.get(requestId)!.blocks.push(...newBlockIds[0]);
      save(requestId, numComputedTokens);
    }
    for (const { requestId, blockIds, numComputedTokens } of newRequests) {
      this.#requests.get(requestId)!.blocks = [...blockIds[0]];
      // A step that loads synchronously may compute on what did not arrive: its blocks are saved by nobody here.
      if (!this.#loads.some((load) => load.requestId === requestId)) save(requestId, numComputedTokens);
    }
    const loads = this.#loads;
    this.#loads = [];
    return { loads, saves };
  }

  updateConnectorOutput(_: ConnectorOutput): void {}

  requestFinished(request: KvRequest): [boolean, null] {
    this.#requests.delete(request.requestId);
    return [false, null];
  }

  hasPendingWork(): boolean {
    return this.#loads.length > 0;
  }

  setHandshakeMetadata(): void {}

  stats() {
    return {};
  }

  async shutdown(): Promise<void> {}
}

class NaiveWorker implements WorkerConnector {
  readonly #store: NaiveConnector;
  readonly #rank: number;
  #memories: readonly Uint8Array[] = [];
  #layout!: KvLayout;
  #work: Work = { loads: [], saves: [] };
  #received: string[] = [];
  #failed: number[] = [];

  constructor(store: NaiveConnector, rank: number) {
    this.#store = store;
    this.#rank = rank;
  }

  registerKvCaches(caches: KvCaches): void {
    this.#memories = caches.memories as readonly Uint8Array[];
    this.#layout = caches.layout(caches.memories.map((_, index) => index));
  }

  getHandshakeMetadata(): null {
    return null;
  }

  bindConnectorMetadata(work: unknown): void {
    this.#work = work as Work;
  }

  clearConnectorMetadata(): void {
    this.#work = { loads: [], saves: [] };
  }

  async handlePreemptions(): Promise<void> {}

  startLoadKv(): void {
    const { async, corrupt, failAt } = this.#store.options;
    for (const { requestId, blocks } of this.#work.loads) {
      for (const { key, block, index } of blocks) {
        const bytes = this.#store.objects.get(`${this.#rank} ${key}`);
        if (bytes === undefined || (failAt !== undefined && index >= failAt)) this.#failed.push(block);
        else this.#copy(block, corrupt ? bytes.with(bytes.length >> 1, bytes[bytes.length >> 1] ^ 1) : bytes, 'load');
      }
      if (async) this.#received.push(requestId);
    }
  }

  async waitForLayerLoad(): Promise<void> {}

  saveKvLayer(): void {}

  async waitForSave(): Promise<void> {
    for (const { key, block } of this.#work.saves.flatMap(({ blocks }) => blocks)) {
      const bytes = new Uint8Array(this.#bytes());
      this.#copy(block, bytes, 'save');
      this.#store.objects.set(`${this.#rank} ${key}`, bytes);
    }
  }

  getFinished() {
    const receiving = this.#received;
    this.#received = [];
    return { sending: [], receiving };
  }

  getBlockIdsWithLoadErrors(): number[] {
    const failed = this.#failed;
    this.#failed = [];
    return failed;
  }

  stats() {
    return {};
  }

  async shutdown(): Promise<void> {}

  #bytes(): number {
    return this.#flat(0).toJSON().segments[0].length;
  }

  /** The layout of one block in bytes of its own: layers, tensors, heads and tokens one after another. */
  #flat(segment: number): KvLayout {
    const plain = this.#layout.toJSON();
    const [group] = plain.groups;
    const { tensors, layers, headRange, blockSize } = this.#layout.group();
    let length = 0;
    const parts = [...tensors].map(([name, { dtype, elements, bytes }]) => {
      const offset = length;
      length += bytes * blockSize * (headRange.to - headRange.from);
      return { name, dtype, elements, offset, strides: { token: bytes, head: bytes * blockSize } };
    });
    const dense = parts.map(({ name, dtype, elements, offset, strides }) => [
      name,
      {
        dtype,
        elements,
        strides: { ...strides, block: length * layers.length, layer: length },
        at: { segment, offset },
      },
    ]);
    return new KvLayout({
      ...plain,
      segments: [{ id: segment, length: length * layers.length }],
      groups: [{ ...group, blocks: 1, tensors: Object.fromEntries(dense) }],
    });
  }

  #copy(block: number, object: Uint8Array, direction: 'load' | 'save'): void {
    const beside = this.#memories.length;
    const flat = this.#flat(beside);
    const copies =
      direction === 'save'
        ? new TransferPlan(this.#layout, flat).describe({ sourceBlocks: [block], destinationBlocks: [0] })
        : new TransferPlan(flat, this.#layout).describe({ sourceBlocks: [0], destinationBlocks: [block] });
    const memory = (segment: number) => (segment === beside ? object : this.#memories[segment]);
    for (const { sourceSegment, destinationSegment, sourceOffset, destinationOffset, length } of copies) {
      const source = memory(sourceSegment).subarray(sourceOffset, sourceOffset + length);
      memory(destinationSegment).set(source, destinationOffset);
    }
  }
}
