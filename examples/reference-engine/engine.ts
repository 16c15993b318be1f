/**
 * The engine: takes requests, runs steps as long as there is something to do, and hands out tokens. Whatever scheduler and
 * ranks need of each other passes through here as plain data, as if they were in different processes.
 */
import { type ConnectorStats, type EngineInfo, MooncakeError, type SchedulerConnector } from 'mooncake-ts';
import { BlockPool } from './block-pool.js';
import { integer, invalid } from './checks.js';
import { Executor, type Rank } from './executor.js';
import { Generation } from './generation.js';
import { KvCache } from './kv-cache.js';
import { type EngineOptions, engineOptions, type GenerateOptions, promptTokens } from './options.js';
import { Pace, within } from './pace.js';
import { Request } from './request.js';
import { Scheduler } from './scheduler.js';
import type { Progress } from './step.js';

/** How often an idle engine asks its connector for work. */
const IDLE_MS = 20;
/** Steps without tokens that follow each other at once, before the engine waits a little between them. */
const EAGER_STEPS = 16;
const MAX_WAIT_MS = 5;

export class ReferenceEngine {
  /** What the engine says of itself to connectors. */
  readonly info: EngineInfo;
  readonly #options: ReturnType<typeof engineOptions>;
  readonly #pool: BlockPool;
  readonly #ranks: Rank[] = [];
  readonly #connector: SchedulerConnector | undefined;
  readonly #scheduler: Scheduler;
  readonly #executor: Executor;
  readonly #generations = new Map<string, Generation>();
  readonly #aborted: string[] = [];
  readonly #pace = new Pace();
  readonly #tokens = { prompt: 0, local: 0, external: 0, none: 0, generated: 0 };
  readonly #stopped: Promise<void>;
  #requests = 0;
  #wake: () => void = () => {};
  #refusal: MooncakeError | undefined;
  #closed: Promise<void> | undefined;

  /** Throws ERR_INVALID_ARGUMENT naming an option that does not fit, and what the connector throws. */
  constructor(options: EngineOptions = {}) {
    const checked = engineOptions(options);
    this.#options = checked;
    const { model, blocks, blockSize, tensorParallelSize, connector, engineId, role, hash } = checked;
    this.info = { engineId, model: model.name, role, hash, tensorParallelSize };
    this.#pool = new BlockPool(blocks);
    const caches = Array.from(
      { length: tensorParallelSize },
      (_, rank) => new KvCache({ config: model.config, blocks, blockSize, rank, size: tensorParallelSize }),
    );
    try {
      this.#connector = connector?.createScheduler(this.info);
      for (const [rank, cache] of caches.entries()) {
        const worker = connector?.createWorker(this.info, rank);
        this.#ranks.push({ cache, connector: worker });
        worker?.registerKvCaches(cache);
      }
      this.#connector?.setHandshakeMetadata(this.#ranks.map((rank) => rank.connector?.getHandshakeMetadata()));
    } catch (error) {
      void this.#shutdown();
      throw error;
    }
    this.#scheduler = new Scheduler({ ...checked, connector: this.#connector, pool: this.#pool });
    this.#executor = new Executor(model, this.#ranks, checked.stepTimeoutMs);
    this.#stopped = this.#run();
  }

  /** The ranks' KV caches, for those who look inside. */
  get caches(): readonly KvCache[] {
    return this.#ranks.map(({ cache }) => cache);
  }

  /**
   * Starts a request: a text, or tokens of the byte tokenizer.
   *
   * @throws ERR_INVALID_ARGUMENT, naming the argument, for a request that the engine could never run; ERR_ABORTED by the
   *   signal; ERR_CLOSED after `close`; why the engine failed, if it did.
   */
  generate(prompt: string | ArrayLike<number>, options: GenerateOptions = {}): Generation {
    if (this.#refusal) throw this.#refusal;
    const { signal, requestId = `${this.info.engineId}-${this.#requests}` } = options;
    const { model, blocks, blockSize, hash } = this.#options;
    const tokens = promptTokens(prompt);
    const most = Math.min(model.config.maxPositions, blocks * blockSize);
    if (tokens.length >= most)
      throw invalid('prompt.length', tokens.length, `below ${most}, the tokens the engine can hold`);
    const maxTokens = integer('maxTokens', options.maxTokens ?? 16, 1, most - tokens.length);
    if (typeof requestId !== 'string' || this.#scheduler.has(requestId)) {
      throw invalid('requestId', requestId, 'a string that no other request has');
    }
    if (options.cacheSalt !== undefined && typeof options.cacheSalt !== 'string') {
      throw invalid('cacheSalt', options.cacheSalt, 'a string');
    }
    if (signal?.aborted) {
      throw new MooncakeError('ERR_ABORTED', `request ${requestId} was aborted`, { cause: signal.reason });
    }
    this.#scheduler.add(new Request({ ...options, requestId, prompt: tokens, maxTokens, hash }));
    this.#requests++;
    const generation = new Generation(requestId, () => this.#abort(requestId));
    this.#generations.set(requestId, generation);
    if (signal) {
      const onAbort = () => generation.abort(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      void generation.result.catch(() => {}).finally(() => signal.removeEventListener('abort', onAbort));
    }
    this.#wake();
    return generation;
  }

  /** Forgets what the engine's own blocks hold, so that only the connector can bring KV of before. */
  resetPrefixCache(): void {
    this.#pool.forgetAll();
  }

  /** Counters since the start, and how things are now. */
  stats() {
    const { running, waiting, loading, delayedRequests, delayedBlocks } = this.#scheduler.figures;
    const { size, free, cached } = this.#pool;
    return {
      requests: { total: this.#requests, running, waiting, loading, delayed: delayedRequests },
      blocks: { total: size, free, cached, delayed: delayedBlocks },
      /** Prompt tokens by where their KV came from, and tokens generated, of requests that ended. */
      tokens: { ...this.#tokens },
      ...this.#scheduler.counters,
      connector: sum(
        [this.#connector, ...this.#ranks.map((rank) => rank.connector)].map((half) => half?.stats() ?? {}),
      ),
    };
  }

  /** Ends every request (ERR_CLOSED) and closes the connector. Idempotent. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#refusal ??= new MooncakeError('ERR_CLOSED', `engine ${this.info.engineId} is closed`, { argument: 'engine' });
    this.#wake();
    await this.#stopped;
    try {
      for (const requestId of this.#generations.keys()) this.#scheduler.abort(requestId);
    } finally {
      this.#failAll(this.#refusal);
      await this.#shutdown();
    }
  }

  async #shutdown(): Promise<void> {
    const halves = [this.#connector, ...this.#ranks.map((rank) => rank.connector)];
    // One that fails to close keeps nobody from closing.
    await Promise.allSettled(
      halves.map(async (half) => half && (await within('shutdown', this.#options.stepTimeoutMs, half.shutdown()))),
    );
  }

  async #run(): Promise<void> {
    try {
      for (let idle = 0; !this.#refusal; ) {
        for (const requestId of this.#aborted.splice(0)) {
          // One that ended by itself meanwhile may have left its id to another request.
          if (!this.#generations.has(requestId)) this.#scheduler.abort(requestId);
        }
        if (!this.#scheduler.hasWork) {
          await this.#sleep(this.#connector ? IDLE_MS : undefined, false);
          continue;
        }
        const step = this.#scheduler.schedule(performance.now());
        const outcome = await this.#executor.run(step);
        for (const progress of this.#scheduler.update(step, outcome)) this.#deliver(progress);
        idle = step.batch.length > 0 ? 0 : idle + 1;
        if (idle <= EAGER_STEPS) await this.#pace.pause();
        else await this.#sleep(Math.min(MAX_WAIT_MS, idle / EAGER_STEPS), this.#scheduler.hasRequests);
      }
    } catch (error) {
      // A connector that throws or never answers: nothing is known of the blocks any more.
      this.#refusal =
        error instanceof MooncakeError
          ? error
          : new MooncakeError('ERR_WORKER', `engine ${this.info.engineId} failed: ${error}`, { cause: error });
      this.#failAll(this.#refusal);
    }
  }

  /** Until `#wake`, or `ms` have passed; `hold` keeps the process alive meanwhile. */
  #sleep(ms: number | undefined, hold: boolean): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(() => this.#wake(), ms);
      if (!hold) timer?.unref();
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #abort(requestId: string): void {
    this.#generations.delete(requestId);
    this.#aborted.push(requestId);
    this.#wake();
  }

  #deliver(progress: Progress): void {
    const { request } = progress;
    const generation = this.#generations.get(request.requestId);
    if (progress.finished === undefined) {
      generation?.push(progress.token);
      return;
    }
    const { local, external } = request.cached;
    this.#tokens.prompt += request.numPromptTokens;
    this.#tokens.local += local;
    this.#tokens.external += external;
    this.#tokens.none += request.numPromptTokens - local - external;
    this.#tokens.generated += request.output.length;
    this.#generations.delete(request.requestId);
    if (progress.finished !== 'abort') generation?.finish(request, progress.finished, progress.params);
  }

  #failAll(error: MooncakeError): void {
    for (const generation of this.#generations.values()) generation.fail(error);
    this.#generations.clear();
  }
}

function sum(parts: readonly ConnectorStats[]): ConnectorStats {
  const total: Record<string, number> = {};
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) total[name] = (total[name] ?? 0) + value;
  }
  return total;
}
