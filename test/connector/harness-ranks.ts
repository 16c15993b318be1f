/**
 * One step of all ranks of the harness's engine. They go layer by layer together, as tensor parallelism makes them: what one
 * rank read wrong is in the next layer of every rank, so that blocks computed on a failed load are wrong everywhere.
 */
import type { SchedulerOutput, WorkerConnector } from 'mooncake-ts';
import type { CacheShape, RankCache } from './cache.js';
import type { HarnessRequest } from './harness-request.js';

export interface RankEngine {
  readonly shape: Omit<CacheShape, 'rank'>;
  readonly workers: readonly WorkerConnector[];
  readonly ranks: readonly RankCache[];
  readonly requests: ReadonlyMap<string, HarnessRequest>;
}

export interface StepReport {
  /** What each rank's connector reported. */
  reports: { sending: string[]; receiving: string[]; invalid: number[] }[];
  /** Wrong bytes that attention read, by request. */
  wrong: Map<string, string[]>;
}

/** `preempted`: blocks that lost their owner in this step. */
export async function runStep(
  engine: RankEngine,
  output: SchedulerOutput,
  metadata: unknown,
  preempted: readonly number[],
): Promise<StepReport> {
  const { workers, ranks, requests, shape } = engine;
  const wrong = new Map<string, string[]>();
  const scheduled = Object.entries(output.numScheduledTokens);
  for (const worker of workers) worker.bindConnectorMetadata(metadata);
  await Promise.all(workers.map((worker) => worker.handlePreemptions(output.preemptedRequestIds)));
  for (const cache of ranks) for (const block of preempted) cache.poison(block);
  for (const worker of workers) worker.startLoadKv();
  if (scheduled.length > 0) {
    for (let layer = 0; layer < shape.layers; layer++) {
      await Promise.all(workers.map((worker) => worker.waitForLayerLoad(layer)));
      for (const [id, tokens] of scheduled) {
        const tainted = wrong.has(id);
        for (const rank of ranks.keys()) {
          const bad = forward(engine, rank, layer, requests.get(id)!, tokens, tainted);
          if (bad.length === 0) continue;
          const line = `${id}: rank ${rank} layer ${layer} tokens ${bad.join()} are not what the model computes`;
          wrong.set(id, [...(wrong.get(id) ?? []), line]);
        }
      }
      for (const worker of workers) worker.saveKvLayer(layer);
    }
    await Promise.all(workers.map((worker) => worker.waitForSave()));
  }
  const reports = workers.map((worker) => {
    const finished = worker.getFinished(output.finishedRequestIds);
    const invalid = worker.getBlockIdsWithLoadErrors();
    worker.clearConnectorMetadata();
    return { ...finished, invalid };
  });
  return { reports, wrong };
}

/** Reads all KV of a request in a layer and writes that of its new tokens; the positions that were wrong. */
function forward(
  { shape, ranks }: RankEngine,
  rank: number,
  layer: number,
  request: HarnessRequest,
  tokens: number,
  tainted: boolean,
): number[] {
  const bad: number[] = [];
  for (let position = 0; position < request.computed + tokens; position++) {
    const [low, high] = request.prefix.at(request.tokens, position);
    const block = request.blocks[Math.floor(position / shape.blockSize)];
    const slot = position % shape.blockSize;
    if (position >= request.computed) ranks[rank].compute(layer, block, slot, tainted ? [~low, high] : [low, high]);
    else if (!ranks[rank].holds(layer, block, slot, [low, high])) bad.push(position);
  }
  return bad;
}
