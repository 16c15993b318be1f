/**
 * An engine for connectors under test: vLLM's V1 scheduler in small (waiting and running requests, chunked prefill,
 * preemption, asynchronous loads, delayed frees) over caches whose every byte is known (cache.ts). It drives both halves
 * in the order of src/connector/api.ts and, as attention would, reads all KV of a request in every layer of every step:
 * what it finds wrong is in `corruptions`. Freed blocks are filled with noise at once, so that a transfer which touches
 * them afterwards is noticed.
 */
import type {
  ConnectorOutput,
  EngineInfo,
  ExtraKeys,
  GroupBlocks,
  HashOptions,
  KvConnector,
  KvRequest,
  KvRole,
  KvTransferParams,
  NewRequestData,
  SchedulerConnector,
  SchedulerOutput,
  WorkerConnector,
} from 'mooncake-ts';
import { type CacheShape, Prefix, RankCache } from './cache.js';

export interface HarnessOptions extends Partial<Omit<CacheShape, 'rank'>> {
  connector: KvConnector;
  engineId?: string;
  role?: KvRole;
  hash?: Partial<HashOptions>;
  /** Tokens of a step over all requests: a longer prompt comes in chunks. Default 1024. */
  maxTokensPerStep?: number;
  /** Requests that run at once share full blocks of equal prefixes. Default false. */
  localPrefixCache?: boolean;
}

export interface RequestOptions {
  id?: string;
  tokens: readonly number[];
  /** Tokens to generate. Default 1. */
  maxTokens?: number;
  extraKeys?: ExtraKeys;
  /** The model's KV depends on it too, as with an adapter: goes with extra keys. */
  adapter?: string;
  kvTransferParams?: KvTransferParams;
}

/** waiting: not begun. remote: waits for an asynchronous load. */
export type RequestState = 'waiting' | 'remote' | 'running' | 'finished';

export class HarnessRequest implements KvRequest {
  readonly requestId: string;
  readonly tokens: number[];
  readonly numPromptTokens: number;
  readonly extraKeys?: ExtraKeys;
  readonly kvTransferParams?: KvTransferParams;
  readonly maxTokens: number;
  readonly prefix: Prefix;
  state: RequestState = 'waiting';
  aborted = false;
  blocks: number[] = [];
  /** Tokens whose KV is there (or on its way, while remote). */
  computed = 0;
  /** Steps may have been lost to it: says so in NewRequestData. */
  preempted = false;
  /** Tokens that came from requests at work here, and from the connector; those lost to failed loads are not counted. */
  localTokens = 0;
  externalTokens = 0;
  /** Tokens computed by forward passes, repeated ones counted again. */
  forwardTokens = 0;
  /** Blocks that connectors reported as failed. */
  failedBlocks = 0;
  /** What requestFinished gave the router. */
  params: KvTransferParams | null = null;
  /** A remote load has ended; the next step takes the request up. */
  received = false;

  constructor(options: RequestOptions, id: string) {
    this.requestId = id;
    this.tokens = [...options.tokens];
    this.numPromptTokens = options.tokens.length;
    this.extraKeys = options.extraKeys;
    this.kvTransferParams = options.kvTransferParams;
    this.maxTokens = options.maxTokens ?? 1;
    this.prefix = new Prefix(options.adapter);
  }

  get outputTokens(): number[] {
    return this.tokens.slice(this.numPromptTokens);
  }
}

/** Blocks of a finished request that a connector still needs. */
interface Held {
  blocks: number[];
  sending: boolean;
  receiving: boolean;
}

let engines = 0;

export class HarnessEngine {
  readonly info: EngineInfo;
  readonly scheduler: SchedulerConnector;
  readonly workers: readonly WorkerConnector[];
  readonly ranks: readonly RankCache[];
  /** Wrong bytes that attention read, one line for each request, layer and step. */
  readonly corruptions: string[] = [];
  readonly requests = new Map<string, HarnessRequest>();
  /** Steps so far. */
  steps = 0;
  readonly #shape: Omit<CacheShape, 'rank'>;
  readonly #budget: number;
  readonly #shareLocally: boolean;
  readonly #waiting: HarnessRequest[] = [];
  readonly #running: HarnessRequest[] = [];
  readonly #held = new Map<string, Held>();
  readonly #free: number[];
  readonly #references = new Map<number, number>();
  readonly #local = new Map<string, number>();
  readonly #sent = new Map<string, number>();
  readonly #received = new Map<string, number>();
  readonly #preemptNext = new Set<HarnessRequest>();
  /** Blocks of requests preempted in this step: free for others, but changed only after handlePreemptions. */
  readonly #preempted: number[] = [];
  #finished: string[] = [];
  #requests = 0;

  constructor(options: HarnessOptions) {
    this.#shape = {
      model: options.model ?? 'harness',
      layers: options.layers ?? 2,
      heads: options.heads ?? 4,
      cellBytes: options.cellBytes ?? 8,
      blockSize: options.blockSize ?? 4,
      blocks: options.blocks ?? 64,
      form: options.form ?? 'fused',
      tensorParallelSize: options.tensorParallelSize ?? 1,
    };
    this.#budget = options.maxTokensPerStep ?? 1024;
    this.#shareLocally = options.localPrefixCache ?? false;
    this.info = {
      engineId: options.engineId ?? `engine-${++engines}`,
      model: this.#shape.model,
      role: options.role ?? 'both',
      hash: { blockSize: this.#shape.blockSize, ...options.hash },
      tensorParallelSize: this.#shape.tensorParallelSize,
    };
    this.#free = Array.from({ length: this.#shape.blocks }, (_, block) => block);
    const { connector } = options;
    this.scheduler = connector.createScheduler(this.info);
    this.ranks = Array.from(
      { length: this.#shape.tensorParallelSize },
      (_, rank) => new RankCache({ ...this.#shape, rank }),
    );
    this.workers = this.ranks.map((cache, rank) => {
      const worker = connector.createWorker(this.info, rank);
      worker.registerKvCaches(cache.caches);
      return worker;
    });
    this.scheduler.setHandshakeMetadata(this.workers.map((worker) => structuredClone(worker.getHandshakeMetadata())));
  }

  get freeBlocks(): number {
    return this.#free.length;
  }

  get blocks(): number {
    return this.#shape.blocks;
  }

  add(options: RequestOptions): HarnessRequest {
    const request = new HarnessRequest(options, options.id ?? `${this.info.engineId}-request-${++this.#requests}`);
    this.requests.set(request.requestId, request);
    this.#waiting.push(request);
    this.scheduler.onNewRequest(request);
    return request;
  }

  /** One pass of the scheduler and the workers. Returns the tokens that were scheduled. */
  async step(): Promise<number> {
    this.steps++;
    const output = this.#schedule();
    const metadata = structuredClone(this.scheduler.buildConnectorMeta(output));
    const wrong = new Map<string, string[]>();
    const reports = await Promise.all(this.workers.map((_, rank) => this.#runRank(rank, output, metadata, wrong)));
    this.#update(output, reports, wrong);
    return Object.values(output.numScheduledTokens).reduce((sum, tokens) => sum + tokens, 0);
  }

  /** Steps until `done`, at most `limitMs` (a hang is an error that says who waits for what). */
  async until(done: () => boolean, limitMs = 20_000): Promise<void> {
    const end = Date.now() + limitMs;
    while (!done()) {
      if (Date.now() > end) throw new Error(`the engine hangs: ${this.#describe()}`);
      const tokens = await this.step();
      await new Promise((resolve) => setTimeout(resolve, tokens > 0 ? 0 : 1));
    }
  }

  /** Steps until every request has ended, every block is back and no half has work left. */
  async drain(limitMs?: number): Promise<void> {
    await this.until(() => this.idle, limitMs);
  }

  get idle(): boolean {
    const busy = this.#waiting.length + this.#running.length + this.#held.size + this.#finished.length;
    return busy === 0 && !this.scheduler.hasPendingWork();
  }

  /** Adds a request and runs until the engine is idle. */
  async run(options: RequestOptions): Promise<HarnessRequest> {
    const request = this.add(options);
    await this.drain();
    return request;
  }

  /** Ends a request wherever it is, as a client that goes away does (between steps). */
  abort(request: HarnessRequest): void {
    if (request.state === 'finished') return;
    request.aborted = true;
    this.#finish(request);
  }

  /** Takes a running request's blocks away: it starts again later. Takes effect in the next step. */
  preempt(request: HarnessRequest): void {
    if (request.state === 'running') this.#preemptNext.add(request);
  }

  async close(): Promise<void> {
    await Promise.all([this.scheduler.shutdown(), ...this.workers.map((worker) => worker.shutdown())]);
  }

  // --- scheduler ---------------------------------------------------------------------------------------------------

  #schedule(): SchedulerOutput {
    const numScheduledTokens: Record<string, number> = {};
    const cached: { requestId: string; newBlockIds: GroupBlocks; numComputedTokens: number }[] = [];
    const fresh: NewRequestData[] = [];
    const preempted: string[] = [];
    let budget = this.#budget;

    for (const request of this.#preemptNext) {
      if (request.state === 'running') preempted.push(this.#takeBack(request));
    }
    this.#preemptNext.clear();

    for (const request of [...this.#running]) {
      if (request.state !== 'running' || budget === 0) continue;
      const tokens = Math.min(budget, request.tokens.length - request.computed);
      let blocks = this.#allocate(request, request.computed + tokens);
      while (blocks === null) {
        const victim = this.#running.at(-1)!;
        preempted.push(this.#takeBack(victim));
        if (victim === request) break;
        blocks = this.#allocate(request, request.computed + tokens);
      }
      if (blocks === null) break;
      budget -= tokens;
      numScheduledTokens[request.requestId] = tokens;
      cached.push({ requestId: request.requestId, newBlockIds: [blocks], numComputedTokens: request.computed });
    }

    if (preempted.length === 0) {
      for (const request of [...this.#waiting]) {
        if (budget === 0) break;
        const tokens = this.#admit(request, budget, fresh);
        if (tokens === 'full') {
          // Requests that hold loaded blocks and cannot go on would wait for each other for ever.
          const holder = this.#waiting.findLast(
            ({ blocks, state, received }) => blocks.length > 0 && (state === 'waiting' || received),
          );
          if (this.#running.length === 0 && holder) preempted.push(this.#takeBack(holder));
          break;
        }
        if (tokens > 0) numScheduledTokens[request.requestId] = tokens;
        budget -= tokens;
      }
    }
    const finishedRequestIds = this.#finished;
    this.#finished = [];
    return {
      newRequests: fresh,
      cachedRequests: cached,
      numScheduledTokens,
      finishedRequestIds,
      preemptedRequestIds: preempted,
    };
  }

  /** Tokens scheduled for a waiting request; 0 when it has to wait on, `full` when blocks are short. */
  #admit(request: HarnessRequest, budget: number, fresh: NewRequestData[]): number | 'full' {
    if (request.state === 'remote') {
      if (!request.received) return 0;
      request.received = false;
      request.state = 'waiting';
      // The last token of a prompt is always computed: its output is the first token.
      if (request.computed === request.tokens.length) request.computed--;
    }
    let external = 0;
    let isAsync = false;
    let local: number[] = [];
    const begin = request.computed === 0;
    if (begin) {
      local = this.#localPrefix(request);
      const offered = this.scheduler.getNumNewMatchedTokens(request, local.length * this.#shape.blockSize);
      if (offered[0] === null) return 0;
      [external, isAsync] = [offered[0], offered[1] && offered[0] > 0];
    }
    const known = begin ? local.length * this.#shape.blockSize + external : request.computed;
    if (known > request.tokens.length || (!isAsync && known === request.tokens.length)) {
      throw new Error(
        `the connector offers ${external} tokens, which leaves none of ${request.tokens.length} to compute`,
      );
    }
    const tokens = isAsync ? 0 : Math.min(budget, request.tokens.length - known);
    for (const block of local) this.#references.set(block, this.#references.get(block)! + 1);
    request.blocks.push(...local);
    if (this.#allocate(request, known + tokens) === null) {
      if (begin) this.#release(request);
      return 'full';
    }
    request.localTokens += local.length * this.#shape.blockSize;
    request.externalTokens += external;
    request.computed = known;
    this.scheduler.updateStateAfterAlloc(request, [[...request.blocks]], external);
    if (isAsync) {
      request.state = 'remote';
      return 0;
    }
    this.#waiting.splice(this.#waiting.indexOf(request), 1);
    this.#running.push(request);
    request.state = 'running';
    fresh.push({
      requestId: request.requestId,
      blockIds: [[...request.blocks]],
      numComputedTokens: request.computed,
      resumed: request.preempted,
    });
    return tokens;
  }

  #takeBack(request: HarnessRequest): string {
    if (request.state === 'running') {
      this.#running.splice(this.#running.indexOf(request), 1);
      this.#waiting.unshift(request);
    }
    request.state = 'waiting';
    request.received = false;
    request.preempted = true;
    request.computed = 0;
    for (const block of request.blocks.splice(0)) if (this.#dereference(block)) this.#preempted.push(block);
    return request.requestId;
  }

  // --- blocks ------------------------------------------------------------------------------------------------------

  /** Blocks for `tokens` tokens of the request; the new ones, or null where there are not enough. */
  #allocate(request: HarnessRequest, tokens: number): number[] | null {
    const missing = Math.ceil(tokens / this.#shape.blockSize) - request.blocks.length;
    if (missing > this.#free.length) return null;
    const blocks = this.#free.splice(0, Math.max(0, missing));
    for (const block of blocks) this.#references.set(block, 1);
    request.blocks.push(...blocks);
    return blocks;
  }

  /** Takes one reference away; true when it was the last, and the block is free. */
  #dereference(block: number): boolean {
    const left = this.#references.get(block)! - 1;
    this.#references.set(block, left);
    if (left > 0) return false;
    for (const [key, cached] of this.#local) if (cached === block) this.#local.delete(key);
    this.#free.push(block);
    return true;
  }

  #release({ blocks }: { blocks: number[] }): void {
    for (const block of blocks.splice(0)) {
      if (this.#dereference(block)) for (const rank of this.ranks) rank.poison(block);
    }
  }

  #localPrefix(request: HarnessRequest): number[] {
    const blocks: number[] = [];
    if (!this.#shareLocally) return blocks;
    const { blockSize } = this.#shape;
    for (let end = blockSize; end < request.tokens.length; end += blockSize) {
      const block = this.#local.get(request.prefix.at(request.tokens, end - 1).join());
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  #shareBlocks(request: HarnessRequest): void {
    if (!this.#shareLocally) return;
    const { blockSize } = this.#shape;
    for (let end = blockSize; end <= request.computed; end += blockSize) {
      const key = request.prefix.at(request.tokens, end - 1).join();
      if (!this.#local.has(key)) this.#local.set(key, request.blocks[end / blockSize - 1]);
    }
  }

  // --- workers -----------------------------------------------------------------------------------------------------

  async #runRank(rank: number, output: SchedulerOutput, metadata: unknown, wrong: Map<string, string[]>) {
    const worker = this.workers[rank];
    worker.bindConnectorMetadata(metadata);
    await worker.handlePreemptions(output.preemptedRequestIds);
    for (const block of this.#preempted) this.ranks[rank].poison(block);
    worker.startLoadKv();
    const scheduled = Object.entries(output.numScheduledTokens);
    if (scheduled.length > 0) {
      for (let layer = 0; layer < this.#shape.layers; layer++) {
        await worker.waitForLayerLoad(layer);
        for (const [id, tokens] of scheduled) this.#forward(rank, layer, this.requests.get(id)!, tokens, wrong);
        worker.saveKvLayer(layer);
      }
      await worker.waitForSave();
    }
    const finished = worker.getFinished(output.finishedRequestIds);
    const invalid = worker.getBlockIdsWithLoadErrors();
    worker.clearConnectorMetadata();
    return { ...finished, invalid };
  }

  #forward(rank: number, layer: number, request: HarnessRequest, tokens: number, wrong: Map<string, string[]>): void {
    const { blockSize } = this.#shape;
    const cache = this.ranks[rank];
    const bad: number[] = [];
    for (let position = 0; position < request.computed + tokens; position++) {
      const state = request.prefix.at(request.tokens, position);
      const block = request.blocks[Math.floor(position / blockSize)];
      if (position >= request.computed) cache.compute(layer, block, position % blockSize, state);
      else if (!cache.holds(layer, block, position % blockSize, state)) bad.push(position);
    }
    if (bad.length === 0) return;
    const line = `${request.requestId}: rank ${rank} layer ${layer} tokens ${bad.join()} are not what the model computes`;
    wrong.set(request.requestId, [...(wrong.get(request.requestId) ?? []), line]);
  }

  // --- after the step ----------------------------------------------------------------------------------------------

  #update(
    output: SchedulerOutput,
    reports: readonly { sending: string[]; receiving: string[]; invalid: number[] }[],
    wrong: Map<string, string[]>,
  ): void {
    this.#preempted.length = 0;
    const report: ConnectorOutput = {
      finishedSending: this.#byAllRanks(
        this.#sent,
        reports.map(({ sending }) => sending),
      ),
      finishedReceiving: this.#byAllRanks(
        this.#received,
        reports.map(({ receiving }) => receiving),
      ),
      invalidBlockIds: [...new Set(reports.flatMap(({ invalid }) => invalid))],
    };
    const invalid = new Set(report.invalidBlockIds);
    const failed = new Set<HarnessRequest>();
    for (const request of this.requests.values()) {
      if (request.state !== 'running' && request.state !== 'remote') continue;
      const first = request.blocks.findIndex((block) => invalid.has(block));
      if (first < 0 || first * this.#shape.blockSize >= request.computed) continue;
      failed.add(request);
      request.failedBlocks += request.blocks.filter((block) => invalid.has(block)).length;
      request.externalTokens -= request.computed - first * this.#shape.blockSize;
      request.computed = first * this.#shape.blockSize;
    }
    this.scheduler.updateConnectorOutput(report);

    for (const [id, tokens] of Object.entries(output.numScheduledTokens)) {
      const request = this.requests.get(id)!;
      request.forwardTokens += tokens;
      if (failed.has(request)) continue;
      this.corruptions.push(...(wrong.get(id) ?? []));
      request.computed += tokens;
      this.#shareBlocks(request);
      if (request.computed < request.tokens.length) continue;
      if (request.tokens.length - request.numPromptTokens < request.maxTokens) this.#sample(request);
      if (request.tokens.length - request.numPromptTokens >= request.maxTokens) this.#finish(request);
    }

    for (const id of report.finishedReceiving) {
      const request = this.#known(id, 'finishedReceiving');
      if (request.state === 'remote') {
        request.received = true;
        if (request.computed === 0) this.#release(request);
      } else this.#unhold(id, 'receiving');
    }
    for (const id of report.finishedSending) {
      this.#known(id, 'finishedSending');
      this.#unhold(id, 'sending');
    }
  }

  /** The next token: a function of every token before it. */
  #sample(request: HarnessRequest): void {
    const [low] = request.prefix.at(request.tokens, request.tokens.length - 1);
    request.tokens.push((low >>> 0) % 50_000);
  }

  #finish(request: HarnessRequest): void {
    const loading = request.state === 'remote' && !request.received;
    for (const list of [this.#waiting, this.#running]) {
      const index = list.indexOf(request);
      if (index >= 0) list.splice(index, 1);
    }
    request.state = 'finished';
    this.#finished.push(request.requestId);
    const [delayFree, params] = this.scheduler.requestFinished(request, [[...request.blocks]]);
    request.params = params;
    if (delayFree || loading) {
      this.#held.set(request.requestId, { blocks: request.blocks, sending: delayFree, receiving: loading });
      request.blocks = [];
    } else this.#release(request);
  }

  #unhold(id: string, what: 'sending' | 'receiving'): void {
    const held = this.#held.get(id);
    if (held === undefined || !held[what])
      throw new Error(`${id} is reported as done ${what}, but nobody waits for it`);
    held[what] = false;
    if (held.sending || held.receiving) return;
    this.#held.delete(id);
    this.#release(held);
  }

  #known(id: string, list: string): HarnessRequest {
    const request = this.requests.get(id);
    if (request === undefined) throw new Error(`${list} names ${id}, which this engine never had`);
    return request;
  }

  #byAllRanks(counts: Map<string, number>, lists: readonly string[][]): string[] {
    const done: string[] = [];
    for (const id of lists.flat()) {
      const count = (counts.get(id) ?? 0) + 1;
      if (count === this.workers.length) {
        counts.delete(id);
        done.push(id);
      } else counts.set(id, count);
    }
    return done;
  }

  #describe(): string {
    const states = [...this.requests.values()]
      .filter(({ state }) => state !== 'finished')
      .map(({ requestId, state, computed, tokens }) => `${requestId} ${state} ${computed}/${tokens.length}`);
    const held = [...this.#held].map(
      ([id, { sending, receiving }]) => `${id} held${sending ? ' sending' : ''}${receiving ? ' receiving' : ''}`,
    );
    const pending = this.scheduler.hasPendingWork() ? ['the connector has pending work'] : [];
    return [...states, ...held, ...pending, `${this.freeBlocks} of ${this.blocks} blocks free`].join(', ');
  }
}

/** Tokens that differ by seed from the first one on. */
export function tokensOf(seed: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => (Math.imul(seed + 1, 2654435761) + Math.imul(i, 40503)) >>> 16);
}
