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
  GroupBlocks,
  HashOptions,
  KvConnector,
  KvRole,
  NewRequestData,
  SchedulerConnector,
  SchedulerOutput,
  WorkerConnector,
} from 'mooncake-ts';
import { type CacheShape, RankCache } from './cache.js';
import { BlockPool } from './harness-blocks.js';
import { runStep, type StepReport } from './harness-ranks.js';
import { HarnessRequest, type RequestOptions } from './harness-request.js';

export { HarnessRequest, type RequestOptions, type RequestState, tokensOf } from './harness-request.js';

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
  readonly shape: Omit<CacheShape, 'rank'>;
  readonly #budget: number;
  readonly #blocks: BlockPool;
  readonly #waiting: HarnessRequest[] = [];
  readonly #running: HarnessRequest[] = [];
  readonly #held = new Map<string, Held>();
  readonly #sent = new Map<string, number>();
  readonly #received = new Map<string, number>();
  readonly #preemptNext = new Set<HarnessRequest>();
  #finished: string[] = [];
  #requests = 0;

  constructor(options: HarnessOptions) {
    this.shape = {
      model: options.model ?? 'harness',
      layers: options.layers ?? 2,
      heads: options.heads ?? 4,
      cellBytes: options.cellBytes ?? 8,
      blockSize: options.blockSize ?? 4,
      blocks: options.blocks ?? 64,
      form: options.form ?? 'fused',
      tensorParallelSize: options.tensorParallelSize ?? 1,
      allocate: options.allocate,
    };
    this.#budget = options.maxTokensPerStep ?? 1024;
    this.info = {
      engineId: options.engineId ?? `engine-${++engines}`,
      model: this.shape.model,
      role: options.role ?? 'both',
      hash: { blockSize: this.shape.blockSize, ...options.hash },
      tensorParallelSize: this.shape.tensorParallelSize,
    };
    const { connector } = options;
    this.scheduler = connector.createScheduler(this.info);
    this.ranks = Array.from(
      { length: this.shape.tensorParallelSize },
      (_, rank) => new RankCache({ ...this.shape, rank }),
    );
    this.#blocks = new BlockPool(this.shape, options.localPrefixCache ?? false, this.ranks);
    this.workers = this.ranks.map((cache, rank) => {
      const worker = connector.createWorker(this.info, rank);
      worker.registerKvCaches(cache.caches);
      return worker;
    });
    this.scheduler.setHandshakeMetadata(this.workers.map((worker) => structuredClone(worker.getHandshakeMetadata())));
  }

  get freeBlocks(): number {
    return this.#blocks.free;
  }

  get blocks(): number {
    return this.shape.blocks;
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
    this.#update(output, await runStep(this, output, metadata, this.#blocks.takePreempted()));
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
      let blocks = this.#blocks.allocate(request, request.computed + tokens);
      while (blocks === null) {
        const victim = this.#running.at(-1)!;
        preempted.push(this.#takeBack(victim));
        if (victim === request) break;
        blocks = this.#blocks.allocate(request, request.computed + tokens);
      }
      if (blocks === null) break;
      budget -= tokens;
      numScheduledTokens[request.requestId] = tokens;
      cached.push({ requestId: request.requestId, newBlockIds: [blocks], numComputedTokens: request.computed });
      this.#blocks.share(request, request.computed + tokens);
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
      local = this.#blocks.localPrefix(request);
      const offered = this.scheduler.getNumNewMatchedTokens(request, local.length * this.shape.blockSize);
      if (offered[0] === null) return 0;
      [external, isAsync] = [offered[0], offered[1] && offered[0] > 0];
    }
    const known = begin ? local.length * this.shape.blockSize + external : request.computed;
    if (known > request.tokens.length || (!isAsync && known === request.tokens.length)) {
      throw new Error(
        `the connector offers ${external} tokens, which leaves none of ${request.tokens.length} to compute`,
      );
    }
    const tokens = isAsync ? 0 : Math.min(budget, request.tokens.length - known);
    this.#blocks.reuse(request, local);
    if (this.#blocks.allocate(request, known + tokens) === null) {
      if (begin) this.#blocks.release(request);
      return 'full';
    }
    request.localTokens += local.length * this.shape.blockSize;
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
    // What a load brings in this step may still fail.
    if (external === 0) this.#blocks.share(request, known + tokens);
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
    this.#blocks.preempt(request);
    return request.requestId;
  }

  // --- after the step ----------------------------------------------------------------------------------------------

  #update(output: SchedulerOutput, { reports, wrong }: StepReport): void {
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
      if (first < 0 || first * this.shape.blockSize >= request.computed) continue;
      failed.add(request);
      request.failedBlocks += request.blocks.filter((block) => invalid.has(block)).length;
      request.externalTokens -= request.computed - first * this.shape.blockSize;
      request.computed = first * this.shape.blockSize;
    }
    this.scheduler.updateConnectorOutput(report);

    for (const [id, tokens] of Object.entries(output.numScheduledTokens)) {
      const request = this.requests.get(id)!;
      request.forwardTokens += tokens;
      if (failed.has(request)) continue;
      this.corruptions.push(...(wrong.get(id) ?? []));
      request.computed += tokens;
      this.#blocks.share(request, request.computed);
      if (request.computed < request.tokens.length) continue;
      if (request.tokens.length - request.numPromptTokens < request.maxTokens) this.#sample(request);
      if (request.tokens.length - request.numPromptTokens >= request.maxTokens) this.#finish(request);
    }

    for (const id of report.finishedReceiving) {
      const request = this.#known(id, 'finishedReceiving');
      if (request.state === 'remote') {
        request.received = true;
        if (request.computed === 0) this.#blocks.release(request);
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
    } else this.#blocks.release(request);
  }

  #unhold(id: string, what: 'sending' | 'receiving'): void {
    const held = this.#held.get(id);
    if (held === undefined || !held[what])
      throw new Error(`${id} is reported as done ${what}, but nobody waits for it`);
    held[what] = false;
    if (held.sending || held.receiving) return;
    this.#held.delete(id);
    this.#blocks.release(held);
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
