/**
 * Runs steps: the forward pass of the batch over all ranks, and around it the calls to the worker halves of the connector,
 * in the order of vLLM's model runner.
 *
 * A step whose load fails is given up as a whole: layers are still waited for, but nothing is computed from what may be
 * wrong, and no layer is announced as saved. So no wrong byte leaves the engine, on whichever rank the load failed.
 */
import type { WorkerConnector } from 'mooncake-ts';
import { Aggregate, type RankOutput } from './aggregate.js';
import type { KvCache } from './kv-cache.js';
import { MAX_ROWS, type Model, type Rows } from './model.js';
import { Pace, within } from './pace.js';
import type { Scheduled, Step, StepOutcome } from './step.js';

/** A tensor-parallel rank: its share of the KV cache, and the worker half of the connector that moves it. */
export interface Rank {
  readonly cache: KvCache;
  readonly connector: WorkerConnector | undefined;
}

export class Executor {
  readonly #model: Model;
  readonly #ranks: readonly Rank[];
  readonly #connectors: readonly WorkerConnector[];
  readonly #aggregate: Aggregate;
  readonly #timeoutMs: number;
  readonly #pace = new Pace();
  /** Per rank, blocks reported in this step as not loaded. */
  #failed: number[][] = [];

  /** `timeoutMs`: how long one call to a connector may take. */
  constructor(model: Model, ranks: readonly Rank[], timeoutMs: number) {
    this.#model = model;
    this.#ranks = ranks;
    this.#connectors = ranks.flatMap(({ connector }) => connector ?? []);
    this.#aggregate = new Aggregate(ranks.length);
    this.#timeoutMs = timeoutMs;
  }

  /** Throws ERR_TIMEOUT where a connector does not answer: it may still write, so no block can be trusted any more. */
  async run({ batch, output, metadata }: Step): Promise<StepOutcome> {
    this.#failed = this.#connectors.map(() => []);
    for (const connector of this.#connectors) connector.bindConnectorMetadata(metadata);
    const { preemptedRequestIds: preempted } = output;
    if (preempted.length > 0)
      await this.#all('handlePreemptions', (connector) => connector.handlePreemptions(preempted));
    for (const connector of this.#connectors) connector.startLoadKv();
    const tokens = await this.#forward(batch);
    await this.#all('waitForSave', (connector) => connector.waitForSave());
    const finished = this.#connectors.map((connector) => connector.getFinished(output.finishedRequestIds));
    this.#collectFailed();
    for (const connector of this.#connectors) connector.clearConnectorMetadata();
    const reports = finished.map((sets, rank): RankOutput => ({ ...sets, invalidBlockIds: this.#failed[rank] }));
    return { tokens, connector: this.#aggregate.add(reports) };
  }

  async #forward(batch: readonly Scheduled[]): Promise<(number | null)[] | null> {
    if (batch.length === 0) return [];
    const caches = this.#ranks.map(({ cache }) => cache);
    const rows = rowsOf(batch);
    const hidden = this.#model.embed(rows);
    const count = rows.tokens.length;
    let usable = true;
    for (let layer = 0; layer < this.#model.config.layers; layer++) {
      await this.#all('waitForLayerLoad', (connector) => connector.waitForLayerLoad(layer));
      usable &&= !this.#anyFailed(batch);
      if (!usable) continue;
      for (let from = 0; from < count; from += MAX_ROWS) {
        this.#model.layer(layer, rows, hidden, caches, from, Math.min(count, from + MAX_ROWS));
        await this.#pace.breathe();
      }
      for (const connector of this.#connectors) connector.saveKvLayer(layer);
    }
    if (!usable) return null;
    let end = 0;
    return batch.map(({ request, from, count }) => {
      end += count;
      return from + count === request.length ? this.#model.next(hidden, end - 1) : null;
    });
  }

  #collectFailed(): void {
    for (const [rank, connector] of this.#connectors.entries()) {
      this.#failed[rank].push(...connector.getBlockIdsWithLoadErrors());
    }
  }

  #anyFailed(batch: readonly Scheduled[]): boolean {
    this.#collectFailed();
    const failed = new Set(this.#failed.flat());
    return failed.size > 0 && batch.some(({ request }) => request.blocks.some((block) => failed.has(block)));
  }

  async #all(what: string, call: (connector: WorkerConnector) => Promise<void>): Promise<void> {
    if (this.#connectors.length > 0) await within(what, this.#timeoutMs, Promise.all(this.#connectors.map(call)));
  }
}

function rowsOf(batch: readonly Scheduled[]): Rows {
  const rows = { tokens: [] as number[], positions: [] as number[], blocks: [] as (readonly number[])[] };
  for (const { request, from, count } of batch) {
    const { tokens, blocks } = request;
    for (let position = from; position < from + count; position++) {
      rows.tokens.push(tokens[position]);
      rows.positions.push(position);
      rows.blocks.push(blocks);
    }
  }
  return rows;
}
