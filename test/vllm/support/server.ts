/** `vllm serve` in a process of its own: 35 to 45 s to start, 2.7 GB. */

import { freePort } from '../../support/masters.js';
import { DEFAULTS, type KvTransferConfig, type LlmOptions } from './engine.js';
import { type VllmOptions, VllmProcess } from './process.js';

const START_MS = 300_000;
const REQUEST_MS = 120_000;

/** A server closes idle connections after 5 s; where the machine stands still, a request would meet that. */
export const FRESH = { connection: 'close' };

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export interface ServerOptions extends VllmOptions {
  readonly transfer?: KvTransferConfig;
  /** Beside or instead of the engines' DEFAULTS: names of vllm.LLM's arguments, given as flags. */
  readonly llm?: LlmOptions;
  readonly args?: readonly string[];
}

/** The served model's name. */
export const MODEL = 'tiny';

/** `{ block_size: 32, enforce_eager: true, swap: false }` as `--block-size 32 --enforce-eager --no-swap`. */
export function flags(options: LlmOptions): string[] {
  return Object.entries(options).flatMap(([name, value]) => {
    const flag = name.replaceAll('_', '-');
    if (value === true) return [`--${flag}`];
    return value === false ? [`--no-${flag}`] : [`--${flag}`, String(value)];
  });
}

export interface CompletionReply {
  readonly choices: { readonly token_ids: number[]; readonly text: string; readonly finish_reason: string }[];
  readonly usage: { readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null };
  readonly kv_transfer_params?: Record<string, unknown> | null;
}

/** DEFAULTS, as far as a server has not got them anyway. */
const { disable_log_stats: _, ...served } = DEFAULTS;
export const SERVED: LlmOptions = served;

export class Server {
  readonly process: VllmProcess;
  readonly port: number;

  private constructor(port: number, { transfer, llm, args = [], ...options }: ServerOptions) {
    this.port = port;
    const all = [
      ...['serve', process.env.MOONCAKE_VLLM_MODEL!, '--served-model-name', MODEL],
      ...['--host', '127.0.0.1', '--port', `${port}`, '--distributed-executor-backend', 'uni'],
      ...flags({ ...SERVED, ...llm }),
      ...(transfer ? ['--kv-transfer-config', JSON.stringify(transfer)] : []),
      '--enable-prompt-tokens-details',
      ...args,
    ];
    this.process = new VllmProcess('serve.py', all, options);
  }

  /** Resolves when it is healthy. Several may be started at the same time. */
  static async start(options: ServerOptions): Promise<Server> {
    const server = new Server(await freePort(), options);
    const deadline = Date.now() + START_MS;
    while (!(await server.healthy())) {
      if (server.process.ended !== undefined) throw server.process.failure(`ended: ${server.process.ended}`);
      if (Date.now() > deadline) {
        const error = server.process.failure(`was not healthy after ${START_MS} ms`);
        await server.kill();
        throw error;
      }
      await wait(250);
    }
    return server;
  }

  /** Starts several at the same time. Those that came up are put into `servers`, whatever became of the others. */
  static async startAll(servers: Server[], options: readonly ServerOptions[]): Promise<Server[]> {
    const starting = await Promise.allSettled(options.map((one) => Server.start(one)));
    const started = starting.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    servers.push(...started);
    for (const one of starting) if (one.status === 'rejected') throw one.reason;
    return started;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async healthy(): Promise<boolean> {
    return fetch(`${this.url}/health`, { headers: FRESH, signal: AbortSignal.timeout(2000) }).then(
      (response) => response.ok,
      () => false,
    );
  }

  async post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
    const response = await fetch(`${this.url}${path}`, {
      method: 'POST',
      headers: { ...FRESH, 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_MS),
    }).catch((cause) => {
      throw this.process.failure(`did not answer POST ${path}: ${cause.cause ?? cause}`, cause);
    });
    if (!response.ok)
      throw this.process.failure(`answered POST ${path} by ${response.status}: ${await response.text()}`);
    return (await response.json()) as T;
  }

  /** A greedy completion of 40 tokens with their ids; `more` goes into the request, `rank` is the data-parallel one. */
  complete(prompt: readonly number[], more: Record<string, unknown> = {}, rank?: number): Promise<CompletionReply> {
    const fixed = { model: MODEL, prompt, temperature: 0, ignore_eos: true, return_token_ids: true, max_tokens: 40 };
    const headers: Record<string, string> = rank === undefined ? {} : { 'x-data-parallel-rank': `${rank}` };
    return this.post('/v1/completions', { ...fixed, ...more }, headers);
  }

  /** Its Prometheus counters and gauges by name; those of one name and several labels are added up. */
  async metrics(): Promise<Record<string, number>> {
    const response = await fetch(`${this.url}/metrics`, { headers: FRESH, signal: AbortSignal.timeout(REQUEST_MS) });
    const values: Record<string, number> = {};
    for (const line of (await response.text()).split('\n')) {
      const [, name, value] = /^([^#{\s]+)(?:\{.*\})?\s+(\S+)$/.exec(line) ?? [];
      if (name) values[name] = (values[name] ?? 0) + Number(value);
    }
    return values;
  }

  /** Ends it as a user does. */
  async stop(): Promise<void> {
    if (this.process.ended === undefined) this.process.child.kill('SIGTERM');
    await this.process.leave();
  }

  /** As a machine that loses power. */
  kill(): Promise<void> {
    return this.process.kill();
  }
}
