/**
 * A vLLM engine for offline prompts, in a process of its own (engine.py): about 12 s to start, 2 GB. What runs over HTTP is in
 * server.ts. `baseline.ts` has the tokens to compare with.
 */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { type VllmOptions, VllmProcess } from './process.js';

const START_MS = 300_000;
const REPLY_MS = 300_000;

/** vLLM's --kv-transfer-config. */
export interface KvTransferConfig {
  readonly kv_connector: string;
  readonly kv_connector_module_path?: string;
  readonly kv_role: 'kv_producer' | 'kv_consumer' | 'kv_both';
  readonly kv_load_failure_policy?: 'recompute' | 'fail';
  readonly kv_connector_extra_config?: Record<string, unknown>;
  readonly engine_id?: string;
}

/** Keyword arguments of vllm.LLM; `kv_events: true` has its KV events published and kept for `events`. */
export type LlmOptions = Readonly<Record<string, unknown>>;

export interface EngineOptions extends VllmOptions {
  readonly transfer?: KvTransferConfig;
  /** Beside or instead of DEFAULTS. */
  readonly llm?: LlmOptions;
}

export interface Sampling {
  /** 40 by default. */
  readonly maxTokens?: number;
  /** All prompts at once; by default one after the other. */
  readonly together?: boolean;
}

export interface Completion {
  readonly tokens: number[];
  /** Tokens of the prompt. */
  readonly prompt: number;
  /** Tokens of the prompt that were not computed: from the engine's own cache or from outside. */
  readonly cached: number;
  /** `length` for a request that went well: the end token is ignored. */
  readonly finish: string;
  /** Milliseconds to the first token, as the engine counts them; null without statistics. */
  readonly ttft: number | null;
}

/** An event of vLLM's stream (vllm/distributed/kv_events.py). */
export interface KvEvent {
  readonly type: 'BlockStored' | 'BlockRemoved' | 'AllBlocksCleared';
  /** `GPU`: the engine's own cache, on a CPU too; `cpu`: the store. */
  readonly medium: string | null;
  readonly hashes: readonly string[];
  readonly parent: string | null;
  readonly tokens: readonly number[];
}

/** What the tests' engines have in common. On a CPU the block size is a multiple of 32. */
export const DEFAULTS: LlmOptions = {
  enforce_eager: true,
  max_model_len: 4096,
  dtype: 'bfloat16',
  seed: 0,
  block_size: 32,
  enable_prefix_caching: true,
  max_num_seqs: 4,
  max_num_batched_tokens: 256,
  disable_log_stats: false,
};

export class Engine {
  readonly process: VllmProcess;
  readonly #waiting: { resolve(result: never): void; reject(error: Error): void }[] = [];

  private constructor({ transfer, llm, ...options }: EngineOptions) {
    const all = { model: process.env.MOONCAKE_VLLM_MODEL, ...DEFAULTS, ...llm, kv_transfer_config: transfer };
    this.process = new VllmProcess('engine.py', [JSON.stringify(all)], options);
    createInterface({ input: this.process.child.stdio[3] as Readable }).on('line', (line) => {
      const { result, error } = JSON.parse(line);
      const { resolve, reject } = this.#waiting.shift()!;
      if (error) reject(this.process.failure(`failed: ${error}`));
      else resolve(result as never);
    });
    this.process.exited.then(() => {
      for (const { reject } of this.#waiting.splice(0)) reject(this.process.failure(`ended: ${this.process.ended}`));
    });
  }

  /** Resolves when it takes prompts. */
  static async start(options: EngineOptions): Promise<Engine> {
    const engine = new Engine(options);
    await engine.#answer('start', START_MS);
    return engine;
  }

  #answer<T>(command: string, milliseconds: number): Promise<T> {
    const { promise, resolve, reject } = deferred<T>();
    const timer = setTimeout(() => {
      reject(this.process.failure(`did not answer ${command} in ${milliseconds} ms`));
      this.process.signal('SIGKILL');
    }, milliseconds);
    this.#waiting.push({ resolve, reject });
    return promise.finally(() => clearTimeout(timer));
  }

  #call<T>(command: string, ...parameters: unknown[]): Promise<T> {
    if (this.process.ended !== undefined) throw this.process.failure(`has ended: ${this.process.ended}`);
    const answer = this.#answer<T>(command, REPLY_MS);
    this.process.child.stdin!.write(`${JSON.stringify([command, parameters])}\n`);
    return answer;
  }

  /** Greedy completions of prompts of token ids. */
  generate(prompts: readonly number[][], { maxTokens = 40, together }: Sampling = {}): Promise<Completion[]> {
    return this.#call('generate', prompts, { max_tokens: maxTokens, together });
  }

  /** Forgets the engine's own prefix cache, so that prompts come from outside; `everywhere`: what its connector keeps, too. */
  async reset(everywhere = false): Promise<void> {
    if (!(await this.#call<boolean>('reset', everywhere))) throw this.process.failure('did not reset its prefix cache');
  }

  /** Counters and gauges by name, e.g. `vllm:external_prefix_cache_hits`. */
  metrics(): Promise<Record<string, number>> {
    return this.#call('metrics');
  }

  /** Tokens that came from outside the engine since it started. */
  async externalTokens(): Promise<number> {
    return (await this.metrics())['vllm:external_prefix_cache_hits'] ?? 0;
  }

  /** KV events that it has published since the last call, where its option `kv_events` is set. */
  events(): Promise<KvEvent[]> {
    return this.#call('events');
  }

  /** Ends it as a user does, its connector's goodbye included. */
  async stop(): Promise<void> {
    if (this.process.ended !== undefined) return;
    await this.#call('stop');
    await this.process.leave();
  }

  /** As a machine that loses power. */
  kill(): Promise<void> {
    return this.process.kill();
  }
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  return { promise, resolve, reject };
}
