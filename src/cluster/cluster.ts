/**
 * A cluster of prefill and decode instances behind one `generate`: prefill on one instance (one token), hand-over, decode on
 * another. An instance that fails or dies is passed over: its request goes to another one, which finds in the store what was
 * already computed and computes the rest, so a caller sees an answer or a typed error, never half of one.
 */
import { randomUUID } from 'node:crypto';
import type { ConnectorStats, KvTransferParams } from '../connector/api.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { HashOptions } from '../core/hash.js';
import type { CachedTokens, GenerateRequest, Instance } from './instance.js';
import { type Assignment, Router, type Scheduling } from './router.js';

export interface ClusterOptions {
  instances: readonly Instance[];
  hash: HashOptions;
  /** Default `prefix_aware`. */
  scheduling?: Scheduling;
  /** A request goes to its decode instance while the prefill instance computes, not after. Default false. */
  beside?: boolean;
}

export interface Completion {
  tokens: number[];
  text: string;
  finishReason: 'stop' | 'length';
  /** Milliseconds from the call to the first token. */
  ttftMs: number;
  totalMs: number;
  promptTokens: number;
  /** Prompt tokens that whoever prefilled did not compute: the prefill instance, or without one the decode instance. */
  prefillCached: CachedTokens;
  /** Prompt tokens that the decode instance did not compute. */
  decodeCached: CachedTokens;
  prefillInstance: string | null;
  decodeInstance: string;
  /** Instances that failed this request before it was answered. */
  retries: number;
}

export interface CompletionOptions {
  maxTokens: number;
  signal?: AbortSignal;
  onToken?: (token: number, text: string) => void;
}

export class Cluster {
  readonly instances: readonly Instance[];
  readonly #router: Router;
  readonly #blockSize: number;
  readonly #beside: boolean;

  constructor({ instances, hash, scheduling = 'prefix_aware', beside = false }: ClusterOptions) {
    this.#beside = beside;
    this.instances = instances;
    this.#router = new Router(instances, hash, scheduling);
    this.#blockSize = hash.blockSize;
  }

  /** Throws ERR_ABORTED, ERR_NO_INSTANCE when no decode instance is left, or what the last one failed with. */
  async generate(tokens: Uint32Array, options: CompletionOptions): Promise<Completion> {
    const signal = options.signal ?? new AbortController().signal;
    const started = performance.now();
    const id = randomUUID();
    const blocks = Math.ceil((tokens.length + options.maxTokens) / this.#blockSize);
    const failed = new Set<Instance>();
    let emitted = 0;
    let firstAt: number | undefined;
    for (;;) {
      const prefilled = this.#beside
        ? this.#prefillBeside(id, tokens, signal, failed)
        : await this.#prefill(id, tokens, signal, failed);
      const assignment = this.#router.decode(blocks, failed);
      if (!assignment) throw prefilled.error ?? errors.noInstance(this.instances.length);
      // Greedy decoding repeats what a failed instance said; the caller hears each token once.
      let heard = 0;
      const onToken = (token: number, text: string) => {
        firstAt ??= performance.now();
        if (heard++ < emitted) return;
        emitted++;
        options.onToken?.(token, text);
      };
      try {
        const request = {
          id: `${id}-decode-${failed.size}`,
          tokens,
          maxTokens: options.maxTokens,
          kvTransferParams: prefilled.params,
        };
        const result = await assignment.instance.generate(request, { signal, onToken });
        assignment.done(true);
        const now = performance.now();
        return {
          tokens: result.tokens,
          text: result.text,
          finishReason: result.finishReason,
          ttftMs: (firstAt ?? now) - started,
          totalMs: now - started,
          promptTokens: tokens.length,
          prefillCached: (await prefilled.cached) ?? result.cached,
          decodeCached: result.cached,
          prefillInstance: prefilled.instance,
          decodeInstance: assignment.instance.name,
          retries: failed.size,
        };
      } catch (error) {
        this.#failed(assignment, failed, error, signal);
      }
    }
  }

  /** Counters of all instances' connectors, added up. */
  async stats(): Promise<ConnectorStats> {
    const total: Record<string, number> = {};
    for (const stats of await Promise.all(this.instances.map((instance) => instance.stats()))) {
      for (const [name, value] of Object.entries(stats)) total[name] = (total[name] ?? 0) + value;
    }
    return total;
  }

  async close(): Promise<void> {
    await Promise.all(this.instances.map((instance) => instance.close()));
  }

  /** Runs the prefill on one instance after another until one succeeds; without any, the decode instance does it all. */
  async #prefill(id: string, tokens: Uint32Array, signal: AbortSignal, failed: Set<Instance>): Promise<Prefilled> {
    for (let error: unknown; ; ) {
      const assignment = this.#router.prefill(tokens, failed);
      if (!assignment) return { params: undefined, cached: undefined, instance: null, error };
      const { instance } = assignment;
      try {
        const result = await instance.generate(prefillRequest(`${id}-${failed.size}`, tokens), { signal });
        assignment.done(true);
        return { params: result.kvTransferParams ?? undefined, cached: result.cached, instance: instance.name, error };
      } catch (problem) {
        error = problem;
        this.#failed(assignment, failed, problem, signal);
      }
    }
  }

  /** Starts the prefill, and says where the decode finds it. One that fails is the decode's to compute, as any lost load. */
  #prefillBeside(id: string, tokens: Uint32Array, signal: AbortSignal, failed: Set<Instance>): Prefilled {
    const assignment = this.#router.prefill(tokens, failed);
    if (!assignment) return { params: undefined, cached: undefined, instance: null, error: undefined };
    const { instance } = assignment;
    const transfer = `${id}-${failed.size}`;
    const cached = instance.generate(prefillRequest(transfer, tokens), { signal }).then(
      (result) => {
        assignment.done(true);
        return result.cached;
      },
      () => {
        assignment.done(false);
        failed.add(instance);
        return undefined;
      },
    );
    const params: KvTransferParams = {
      do_remote_decode: false,
      do_remote_prefill: true,
      transfer_id: transfer,
      remote_engine_id: instance.reached.engineId,
      remote_bootstrap_addr: instance.reached.address,
    };
    return { params, cached, instance: instance.name, error: undefined };
  }

  #failed(assignment: Assignment, failed: Set<Instance>, error: unknown, signal: AbortSignal): void {
    assignment.done(false);
    if (signal.aborted) throw errors.aborted(signal.reason);
    // The caller's mistake would be refused by every instance.
    if (error instanceof MooncakeError && error.code === 'ERR_INVALID_ARGUMENT') throw error;
    failed.add(assignment.instance);
  }
}

/** A prefill that has ended, or runs. */
interface Prefilled {
  /** What the decode is told. */
  readonly params: KvTransferParams | undefined;
  readonly cached: CachedTokens | undefined | Promise<CachedTokens | undefined>;
  readonly instance: string | null;
  /** What the last instance failed with. */
  readonly error: unknown;
}

function prefillRequest(transfer: string, tokens: Uint32Array): GenerateRequest {
  const kvTransferParams = { do_remote_decode: true, do_remote_prefill: false, transfer_id: transfer };
  return { id: `${transfer}-prefill`, tokens, maxTokens: 1, kvTransferParams };
}
