/** MooncakeStoreConnector in steps that harness.ts does not make: by hand, and over stores that hang. */
import { type GroupBlocks, MooncakeError, MooncakeStore, MooncakeStoreConnector, type ObjectStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessOptions, tokensOf } from './harness.js';
import { slowStore } from './slow-store.js';

const TOKENS = tokensOf(1, 18);
const OUTPUT = { newRequests: [], cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [] };

interface Options extends Partial<HarnessOptions> {
  store?: Partial<ObjectStore>;
  connector?: never;
}

/** An engine over a store of its own whose calls `store` replaces, and connector options. */
async function withEngine(
  options: Options & { lookupTimeoutMs?: number; saveTimeoutMs?: number; maxSaves?: number; batchBytes?: number },
  run: (engine: HarnessEngine, connector: MooncakeStoreConnector) => Promise<void>,
): Promise<void> {
  const { store: calls, lookupTimeoutMs, saveTimeoutMs, maxSaves, batchBytes, ...shape } = options;
  const inner = new MooncakeStore({ segments: '4MB' });
  const store = Object.assign(
    slowStore(inner, () => 0),
    calls,
  );
  const connector = new MooncakeStoreConnector({ store, lookupTimeoutMs, saveTimeoutMs, maxSaves, batchBytes });
  const engine = new HarnessEngine({ ...shape, connector });
  try {
    await run(engine, connector);
    assert.equal(engine.corruptions, []);
  } finally {
    await engine.close();
    await inner.close();
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

async function ask({ scheduler }: HarnessEngine, requestId: string, tokens: number[], computed = 0) {
  const request = { requestId, tokens, numPromptTokens: tokens.length };
  for (;;) {
    const [offered] = scheduler.getNumNewMatchedTokens(request, computed);
    if (offered !== null) return { request, offered };
    await pause();
  }
}

interface StoreStep {
  loads: { groups: { blockIds: number[] }[] }[];
  saves: { positions: number[] }[];
}

const saved = (metadata: unknown) => (metadata as StoreStep).saves.flatMap(({ positions }) => positions);

test('draft tokens that were scheduled and rejected are not saved as if they were the last token', async () => {
  await withEngine({}, async ({ scheduler }) => {
    const tokens = tokensOf(2, 7);
    const request = { requestId: 'drafts', tokens, numPromptTokens: 6 };
    const blocks: GroupBlocks = [[1, 2, 3]];
    await pause();
    scheduler.updateStateAfterAlloc(request, blocks, 0);
    // Six tokens are computed; the step computes the seventh and three drafts, of which none is accepted.
    const fresh = { requestId: 'drafts', blockIds: blocks, numComputedTokens: 6 };
    const step = { ...OUTPUT, newRequests: [fresh], numScheduledTokens: { drafts: 4 } };
    assert.equal(saved(scheduler.buildConnectorMeta(step)), [0]);
    tokens.push(99);
    // Slot 7 has the KV of a draft, not that of 99.
    scheduler.requestFinished(request, blocks);
    assert.equal(saved(scheduler.buildConnectorMeta({ ...OUTPUT, numScheduledTokens: {} })), []);
  });
});

/** One step of a request on the first rank of an engine; `layers` says which are announced. */
async function step(
  { scheduler, workers }: HarnessEngine,
  output: Parameters<HarnessEngine['scheduler']['buildConnectorMeta']>[0],
  layers: number[],
): Promise<void> {
  const [worker] = workers;
  worker.bindConnectorMetadata(structuredClone(scheduler.buildConnectorMeta(output)));
  worker.startLoadKv();
  for (const layer of layers) worker.saveKvLayer(layer);
  await worker.waitForSave();
  const { sending, receiving } = worker.getFinished([]);
  worker.clearConnectorMetadata();
  scheduler.updateConnectorOutput({ finishedSending: sending, finishedReceiving: receiving, invalidBlockIds: [] });
}

test('a layer that the engine does not announce was not computed: nothing is saved, until it is', async () => {
  await withEngine({}, async (engine) => {
    const { scheduler, workers } = engine;
    const request = { requestId: 'given up', tokens: TOKENS, numPromptTokens: TOKENS.length };
    const blockIds: GroupBlocks = [[1, 2, 3, 4, 5]];
    await pause();
    scheduler.updateStateAfterAlloc(request, blockIds, 0);
    const fresh = { requestId: 'given up', blockIds, numComputedTokens: 0 };
    const numScheduledTokens = { 'given up': 18 };
    await step(engine, { ...OUTPUT, newRequests: [fresh], numScheduledTokens }, [0]);
    while (workers[0].stats().failedSaveBlocks < 4) await pause();
    assert.is(workers[0].stats().savedBlocks, 0);

    // The engine computes it again.
    const again = { requestId: 'given up', newBlockIds: [[]], numComputedTokens: 0 };
    await step(engine, { ...OUTPUT, cachedRequests: [again], numScheduledTokens }, [0, 1]);
    while (workers[0].stats().savedBlocks < 4) await pause();
  });
});

test('layers that are computed by the time a save comes to them are written together', async () => {
  const writes: number[] = [];
  const inner = new MooncakeStore({ segments: '4MB' });
  const openPut: ObjectStore['openPut'] = async (...args) => {
    const batch = await inner.openPut(...args);
    const write: typeof batch.write = (descriptors, limits) => {
      writes.push(descriptors.totalBytes);
      return batch.write(descriptors, limits);
    };
    return { statuses: batch.statuses, write, commit: () => batch.commit(), abort: () => batch.abort() };
  };
  const store = Object.assign(
    slowStore(inner, () => 0),
    { openPut },
  );
  const engine = new HarnessEngine({ layers: 3, connector: new MooncakeStoreConnector({ store }) });
  try {
    const { scheduler } = engine;
    const [worker] = engine.workers;
    const request = { requestId: 'layers', tokens: TOKENS, numPromptTokens: TOKENS.length };
    const blockIds: GroupBlocks = [[1, 2, 3, 4, 5]];
    await pause();
    scheduler.updateStateAfterAlloc(request, blockIds, 0);
    const newRequests = [{ requestId: 'layers', blockIds, numComputedTokens: 0 }];
    const output = { ...OUTPUT, newRequests, numScheduledTokens: { layers: 18 } };
    worker.bindConnectorMetadata(structuredClone(scheduler.buildConnectorMeta(output)));
    worker.startLoadKv();
    worker.saveKvLayer(0);
    while (writes.length === 0) await pause();
    worker.saveKvLayer(1);
    worker.saveKvLayer(2);
    await worker.waitForSave();
    while (worker.stats().savedBlocks + worker.stats().failedSaveBlocks < 4) await pause();
    assert.is(worker.stats().savedBlocks, 4);
    assert.equal(writes, [writes[0], 2 * writes[0]]);
  } finally {
    await engine.close();
    await inner.close();
  }
});

test('an aborted request saves nothing of a step that was given up', async () => {
  await withEngine({}, async ({ scheduler }) => {
    const request = { requestId: 'aborted', tokens: TOKENS, numPromptTokens: TOKENS.length };
    const blockIds: GroupBlocks = [[1, 2, 3, 4, 5]];
    await pause();
    scheduler.updateStateAfterAlloc(request, blockIds, 0);
    const fresh = { requestId: 'aborted', blockIds, numComputedTokens: 0 };
    scheduler.buildConnectorMeta({ ...OUTPUT, newRequests: [fresh], numScheduledTokens: { aborted: 9 } });
    const cached = { requestId: 'aborted', newBlockIds: [[]], numComputedTokens: 9 };
    scheduler.buildConnectorMeta({ ...OUTPUT, cachedRequests: [cached], numScheduledTokens: { aborted: 9 } });
    // Another request lost its load: the engine may have thrown the whole step away.
    scheduler.updateConnectorOutput({ finishedSending: [], finishedReceiving: [], invalidBlockIds: [63] });
    scheduler.requestFinished(request, blockIds);
    assert.equal(saved(scheduler.buildConnectorMeta({ ...OUTPUT, numScheduledTokens: {} })), []);
  });
});

test('of a block that the engine has in part, nothing is offered', async () => {
  await withEngine({}, async (engine) => {
    await engine.run({ tokens: TOKENS });
    const { request, offered } = await ask(engine, 'whole', TOKENS, 4);
    assert.is(offered, 12);
    engine.scheduler.updateStateAfterAlloc(request, [[1, 2, 3, 4, 5]], 12);
    const { loads } = engine.scheduler.buildConnectorMeta({ ...OUTPUT, numScheduledTokens: {} }) as StoreStep;
    assert.equal(loads[0].groups[0].blockIds, [2, 3, 4]);
    assert.is((await ask(engine, 'part', TOKENS, 6)).offered, 0);
    assert.is((await ask(engine, 'prompt', TOKENS, 18)).offered, 0);
  });
});

test('a load into too few blocks is refused', async () => {
  await withEngine({}, async (engine) => {
    await engine.run({ tokens: TOKENS });
    const { request, offered } = await ask(engine, 'short', TOKENS);
    assert.is(offered, 16);
    assert.throws(
      () => engine.scheduler.updateStateAfterAlloc(request, [[1, 2, 3]], 16),
      (error: MooncakeError) => error.code === 'ERR_INVALID_ARGUMENT' && error.argument === 'blockIds[0]',
    );
    assert.not.ok(engine.scheduler.hasPendingWork());
  });
});

test('a lookup ends at its deadline, whatever number of calls it takes', async () => {
  let calls = 0;
  const store: Partial<ObjectStore> = {
    async batchIsExist(keys) {
      calls++;
      await new Promise((resolve) => setTimeout(resolve, 60));
      return new Int32Array(keys.length).fill(1);
    },
  };
  await withEngine({ store, lookupTimeoutMs: 100 }, async (engine) => {
    // Twenty calls of 512 blocks, were it to go on.
    const tokens = tokensOf(1, 20 * 512 * 4 + 1);
    const { offered } = await ask(engine, 'long', tokens);
    // One call looks for what vLLM's own connector wrote.
    assert.ok(calls <= 3, `${calls} calls`);
    assert.ok(offered < tokens.length - 1);
  });
});

test('saves that wait behind a store that hangs are given up, and their blocks come back', async () => {
  let hanging = 0;
  let end!: (error: Error) => void;
  const store: Partial<ObjectStore> = {
    openPut() {
      hanging++;
      return new Promise((_, reject) => {
        end = reject;
      });
    },
  };
  await withEngine({ store, saveTimeoutMs: 50, maxSaves: 1, batchBytes: 512 }, async (engine) => {
    const request = engine.add({ tokens: TOKENS });
    await engine.until(() => request.state === 'finished');
    await engine.until(() => engine.workers[0].stats().failedSaveBlocks === 3);
    assert.is(hanging, 1);
    end(new MooncakeError('ERR_TIMEOUT', 'at last'));
    await engine.drain();
    assert.is(engine.freeBlocks, engine.blocks);
    assert.is(hanging, 1);
  });
});

test('an engine that wants blocks back does not wait for a store that hangs', async () => {
  const store: Partial<ObjectStore> = {
    openPut: (_keys, _sizes, { signal }) =>
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
  };
  await withEngine({ store, saveTimeoutMs: 3_600_000, maxSaves: 1, batchBytes: 512 }, async (engine) => {
    const request = engine.add({ tokens: TOKENS, maxTokens: 6 });
    await engine.until(() => request.outputTokens.length === 2);
    engine.preempt(request);
    await engine.until(() => request.preempted && request.outputTokens.length === 5);
    assert.ok(engine.workers[0].stats().failedSaveBlocks >= 4);
  });
});

test.run();
