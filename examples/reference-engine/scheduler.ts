/**
 * The scheduler: which requests compute how many tokens in the next step, and in which blocks. Like vLLM's V1 scheduler,
 * without its options: running requests first, in order of arrival, then waiting ones, until the step's tokens are used up;
 * a prompt may come in chunks; where blocks run out, the request that started last gives up its own and starts again later.
 *
 *            add                     allocated                 end, abort
 *     ──────────────► waiting ─────────────────────► running ─────────────► finished
 *                     │     ▲ ▲                        │
 *      asynchronous   ▼     │ └────────────────────────┘ preempted
 *      load         loading ┘ loaded, or not
 */
import type { CachedRequestData, NewRequestData, SchedulerConnector } from 'mooncake-ts';
import { Admission, type Offer } from './admission.js';
import type { BlockPool } from './block-pool.js';
import { DelayedFrees, type FreeDelay } from './delayed-frees.js';
import type { Request } from './request.js';
import type { FinishReason, Progress, Scheduled, Step, StepOutcome } from './step.js';
import { EOS } from './tokenizer.js';

export interface SchedulerOptions {
  pool: BlockPool;
  /** Tokens per block. */
  blockSize: number;
  /** Tokens that a step computes at most. */
  maxBatchedTokens: number;
  /** Requests that run at once. */
  maxRequests: number;
  connector?: SchedulerConnector;
  /** How long a connector may look for a request's KV, and load it. */
  lookupTimeoutMs: number;
  loadTimeoutMs: number;
}

export class Scheduler {
  readonly counters = { preemptions: 0, failedBlocks: 0, steps: 0, stepsGivenUp: 0, loadTimeouts: 0 };
  readonly #options: SchedulerOptions;
  readonly #admission: Admission;
  readonly #delayed: DelayedFrees;
  readonly #requests = new Map<string, Request>();
  #waiting: Request[] = [];
  #running: Request[] = [];
  /** Reported to the connector with the next step. */
  #finished: string[] = [];
  #preempted: string[] = [];

  constructor(options: SchedulerOptions) {
    const { pool, blockSize, connector, lookupTimeoutMs } = options;
    this.#options = options;
    this.#admission = new Admission(pool, blockSize, connector, lookupTimeoutMs);
    this.#delayed = new DelayedFrees(pool);
  }

  /** Requests by state, and the blocks kept for connectors. */
  get figures() {
    const loading = this.#waiting.filter(({ state }) => state === 'loading').length;
    return {
      running: this.#running.length,
      waiting: this.#waiting.length - loading,
      loading,
      delayedRequests: this.#delayed.size,
      delayedBlocks: this.#delayed.blocks,
    };
  }

  /** Whether the id is a request's, or of one whose blocks are still kept. */
  has(requestId: string): boolean {
    return this.#requests.has(requestId) || this.#delayed.has(requestId);
  }

  /** Some request wants to go on. */
  get hasRequests(): boolean {
    return this.#requests.size > 0;
  }

  /** A step has something to do, if only to hear of connectors. */
  get hasWork(): boolean {
    if (this.#requests.size > 0) return true;
    const { connector } = this.#options;
    return (
      connector !== undefined && (this.#finished.length > 0 || this.#delayed.size > 0 || connector.hasPendingWork())
    );
  }

  add(request: Request): void {
    this.#options.connector?.onNewRequest(request);
    this.#requests.set(request.requestId, request);
    this.#waiting.push(request);
  }

  /** Ends a request before its time, in whatever state; null where it has ended already. */
  abort(requestId: string): Progress | null {
    const request = this.#requests.get(requestId);
    return request === undefined ? null : this.#finish(request, 'abort');
  }

  /** The next step; its batch is empty where no request can go on. `now` in milliseconds. */
  schedule(now: number): Step {
    this.counters.steps++;
    const batch: Scheduled[] = [];
    const [cached, fresh]: [CachedRequestData[], NewRequestData[]] = [[], []];
    const budget = this.#continue(this.#options.maxBatchedTokens, batch, cached);
    this.#start(budget, now, batch, fresh);
    const output = {
      newRequests: fresh,
      cachedRequests: cached,
      numScheduledTokens: Object.fromEntries(batch.map(({ request, count }) => [request.requestId, count])),
      finishedRequestIds: this.#finished,
      preemptedRequestIds: this.#preempted,
    };
    this.#finished = [];
    this.#preempted = [];
    return { batch, output, metadata: this.#options.connector?.buildConnectorMeta(output) };
  }

  /** Running requests: a token each, or the next chunk of a prompt. What is left of the budget. */
  #continue(budget: number, batch: Scheduled[], cached: CachedRequestData[]): number {
    for (let i = 0; i < this.#running.length && budget > 0; i++) {
      const request = this.#running[i];
      const count = Math.min(request.length - request.numComputed, budget);
      const added = this.#grow(request, request.numComputed + count);
      if (added === null) break;
      cached.push({
        requestId: request.requestId,
        newBlockIds: [added],
        numComputedTokens: request.numComputed,
      });
      batch.push({ request, from: request.numComputed, count });
      budget -= count;
    }
    return budget;
  }

  /** Blocks for `tokens` tokens, taken from the requests that started last if need be; null where this is the last. */
  #grow(request: Request, tokens: number): number[] | null {
    const lacking = this.#blocksFor(tokens) - request.blocks.length;
    for (;;) {
      const added = this.#options.pool.allocate([], Math.max(0, lacking));
      if (added !== null) {
        request.blocks.push(...added);
        return added;
      }
      const last = this.#running.at(-1) as Request;
      this.#preempt(last);
      if (last === request) return null;
    }
  }

  #preempt(request: Request): void {
    this.counters.preemptions++;
    this.#running = this.#running.filter((other) => other !== request);
    this.#options.pool.release(request.blocks);
    request.blocks = [];
    request.numComputed = 0;
    request.preempted = true;
    request.state = 'waiting';
    this.#waiting.unshift(request);
    this.#preempted.push(request.requestId);
  }

  /** Waiting requests: those whose load has ended, and new ones as long as there are blocks for them. */
  #start(budget: number, now: number, batch: Scheduled[], fresh: NewRequestData[]): void {
    let room = this.#preempted.length === 0;
    for (const request of [...this.#waiting]) {
      if (budget === 0 || this.#running.length >= this.#options.maxRequests) return;
      if (request.state === 'loading') {
        if (now > request.loadDeadline) this.#giveUpLoad(request);
        continue;
      }
      // Who owns blocks already goes on even where there is no room: it is how others get theirs in the end.
      if (request.blocks.length === 0) {
        const offer = room ? this.#admission.offer(request, now) : null;
        if (offer === null) continue;
        room = this.#allocate(request, offer, budget, now);
        if (!room || offer.async) continue;
      }
      this.#waiting = this.#waiting.filter((other) => other !== request);
      this.#running.push(request);
      request.state = 'running';
      const [from, count] = [request.numComputed, Math.min(request.length - request.numComputed, budget)];
      fresh.push({
        requestId: request.requestId,
        blockIds: [[...request.blocks]],
        numComputedTokens: from,
        ...(request.preempted && { resumed: true }),
      });
      batch.push({ request, from, count });
      budget -= count;
    }
  }

  /** Gives the request its first blocks, and what is offered to the connector to load; false where there are too few. */
  #allocate(request: Request, { matched, external, async, computed }: Offer, budget: number, now: number): boolean {
    const { pool, blockSize, connector, loadTimeoutMs } = this.#options;
    const local = matched.length * blockSize;
    // A load that goes on by itself gets the blocks of the whole prompt, so that it never waits, full, for one more.
    const end = async ? request.length : Math.max(local + external, Math.min(request.length, computed + budget));
    const blocks = pool.allocate(matched, this.#blocksFor(end) - matched.length);
    if (blocks === null) return false;
    request.blocks = blocks;
    request.numComputed = computed;
    request.shared = matched.length;
    if (!request.preempted) Object.assign(request.cached, { local, external: computed - local });
    connector?.updateStateAfterAlloc(request, [[...blocks]], external);
    if (async) {
      request.state = 'loading';
      request.loadDeadline = now + loadTimeoutMs;
    }
    return true;
  }

  /** Starts over without the connector; the blocks stay away from everybody else until it says that it is done. */
  #giveUpLoad(request: Request): void {
    this.counters.loadTimeouts++;
    this.#delayed.take(request.requestId, request.blocks, ['receiving']);
    request.blocks = [];
    request.state = 'waiting';
    this.#distrust(request, 0);
  }

  /** Only the first `tokens` tokens of the request's KV can be relied on, and nothing more is loaded for it. */
  #distrust(request: Request, tokens: number): void {
    request.numComputed = tokens;
    request.shared = Math.min(request.shared, Math.floor(tokens / this.#options.blockSize));
    request.mayLoad = false;
    const { local, external } = request.cached;
    Object.assign(request.cached, {
      local: Math.min(local, tokens),
      external: Math.max(0, Math.min(external, tokens - local)),
    });
  }

  /** Books what a step brought; what it means to those who wait for the requests, in order. */
  update({ batch }: Step, { tokens, connector: output }: StepOutcome): Progress[] {
    this.#options.connector?.updateConnectorOutput(output);
    const failed = this.#invalidate(new Set(output.invalidBlockIds));
    const progress: Progress[] = [];
    if (tokens === null) this.counters.stepsGivenUp++;
    for (const [i, { request, from, count }] of batch.entries()) {
      if (tokens === null || failed.has(request)) continue;
      request.numComputed = from + count;
      this.#share(request);
      const token = tokens[i];
      if (token === null) continue;
      request.append(token);
      progress.push({ request, token });
      const ended = token === EOS && !request.ignoreEos ? 'stop' : 'length';
      if (ended === 'stop' || request.output.length === request.maxTokens) progress.push(this.#finish(request, ended));
    }
    for (const id of output.finishedReceiving) this.#received(id);
    for (const id of output.finishedSending) this.#delayed.end(id, 'sending');
    return progress;
  }

  /** Requests with a block whose load failed compute again from the first such block on. */
  #invalidate(blocks: ReadonlySet<number>): Set<Request> {
    const failed = new Set<Request>();
    if (blocks.size === 0) return failed;
    this.counters.failedBlocks += blocks.size;
    for (const request of this.#requests.values()) {
      const first = request.blocks.findIndex((block) => blocks.has(block));
      const tokens = first * this.#options.blockSize;
      if (first < 0 || tokens >= request.numComputed) continue;
      failed.add(request);
      // What was computed behind a wrong block is wrong too.
      for (const block of request.blocks.slice(first)) this.#options.pool.forget(block);
      this.#distrust(request, tokens);
    }
    return failed;
  }

  /** Full blocks hold what their hashes say: others may use them. */
  #share(request: Request): void {
    const { pool, blockSize } = this.#options;
    const { hashes, blocks, numComputed } = request;
    for (; (request.shared + 1) * blockSize <= numComputed; request.shared++) {
      pool.remember(blocks[request.shared], hashes[request.shared]);
    }
  }

  #received(requestId: string): void {
    const request = this.#requests.get(requestId);
    if (request?.state === 'loading') {
      request.state = 'waiting';
      this.#share(request);
    } else {
      this.#delayed.end(requestId, 'receiving');
    }
  }

  #finish(request: Request, reason: FinishReason): Progress {
    const { requestId, blocks } = request;
    const [delay, params] = this.#options.connector?.requestFinished(request, [[...blocks]]) ?? [false, null];
    const delays: FreeDelay[] = delay ? ['sending'] : [];
    if (request.state === 'loading') delays.push('receiving');
    this.#delayed.take(requestId, blocks, delays);
    request.state = 'finished';
    request.blocks = [];
    this.#requests.delete(requestId);
    this.#admission.forget(requestId);
    this.#waiting = this.#waiting.filter((other) => other !== request);
    this.#running = this.#running.filter((other) => other !== request);
    this.#finished.push(requestId);
    return { request, finished: reason, params };
  }

  #blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.#options.blockSize);
  }
}
