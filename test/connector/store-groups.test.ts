/**
 * Caches with several groups, driven by hand: full attention, a sliding window and a state of larger blocks. Of a window
 * and a state only the end of a prefix is kept and needed, and null blocks stand for the rest.
 */
import { type GroupBlocks, KvLayout, MooncakeStore, MooncakeStoreConnector } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';

const BLOCKS = 16;
/** Bytes of a block by group, and where the group begins in memory. */
const PAGES = [64, 32, 40];
const STARTS = PAGES.map((_, group) => PAGES.slice(0, group).reduce((sum, page) => sum + page * BLOCKS, 0));
const LENGTH = PAGES.reduce((sum, page) => sum + page * BLOCKS, 0);
const OUTPUT = { cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [] };

function layout([segment]: readonly number[]): KvLayout {
  const at = (group: number) => ({ segment, offset: STARTS[group] });
  return new KvLayout({
    segments: [{ id: segment, length: LENGTH }],
    groups: [
      {
        kind: 'full',
        layers: [0],
        heads: 2,
        blockSize: 4,
        blocks: BLOCKS,
        tensors: { k: { dtype: 'uint8', elements: 8, strides: { block: 64, token: 16, head: 8 }, at: at(0) } },
      },
      {
        kind: 'sliding',
        window: 6,
        layers: [1],
        heads: 2,
        blockSize: 4,
        blocks: BLOCKS,
        tensors: { k: { dtype: 'uint8', elements: 4, strides: { block: 32, token: 8, head: 4 }, at: at(1) } },
      },
      {
        kind: 'state',
        layers: [2],
        blockSize: 8,
        blocks: BLOCKS,
        tensors: { ssm: { dtype: 'uint8', elements: 40, strides: { block: 40 }, at: at(2) } },
      },
    ],
  });
}

const block = (memory: Uint8Array, group: number, id: number) =>
  memory.slice(STARTS[group] + id * PAGES[group], STARTS[group] + (id + 1) * PAGES[group]);

/** An engine's two halves over memory of its own. */
function open(store: MooncakeStore, fill: (i: number) => number) {
  const engine = { engineId: 'by hand', model: 'hybrid', role: 'both', hash: { blockSize: 4 } } as const;
  const connector = new MooncakeStoreConnector({ store, integrity: 'strict' });
  const [scheduler, worker] = [connector.createScheduler(engine), connector.createWorker(engine, 0)];
  const memory = Uint8Array.from({ length: LENGTH }, (_, i) => fill(i));
  worker.registerKvCaches({ memories: [memory], layout });
  scheduler.setHandshakeMetadata([worker.getHandshakeMetadata()]);

  const ask = async (requestId: string, tokens: number[]) => {
    const request = { requestId, tokens, numPromptTokens: tokens.length };
    for (;;) {
      const [offered] = scheduler.getNumNewMatchedTokens(request, 0);
      if (offered !== null) return { request, offered };
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  const step = async (output: Parameters<typeof scheduler.buildConnectorMeta>[0]) => {
    worker.bindConnectorMetadata(structuredClone(scheduler.buildConnectorMeta(output)));
    worker.startLoadKv();
    if (output.newRequests.length > 0) {
      for (const layer of [0, 1, 2]) {
        await worker.waitForLayerLoad(layer);
        worker.saveKvLayer(layer);
      }
      await worker.waitForSave();
    }
    const { receiving, sending } = worker.getFinished([]);
    const report = {
      finishedSending: sending,
      finishedReceiving: receiving,
      invalidBlockIds: worker.getBlockIdsWithLoadErrors(),
    };
    worker.clearConnectorMetadata();
    scheduler.updateConnectorOutput(report);
    return report;
  };
  const close = () => Promise.all([scheduler.shutdown(), worker.shutdown()]);
  return { scheduler, worker, memory, ask, step, close };
}

test('of a window and a state, the end of a prefix is saved, offered and loaded', async () => {
  const store = new MooncakeStore({ segments: '4MB' });
  const tokens = tokensOf(3, 25);
  const from = open(store, (i) => (i * 7 + 1) % 251);
  const saved: GroupBlocks = [
    [1, 2, 3, 4, 5, 6, 7],
    [0, 0, 0, 4, 5, 6, 7],
    [0, 0, 3, 4],
  ];
  const { request, offered } = await from.ask('computes', tokens);
  assert.is(offered, 0);
  from.scheduler.updateStateAfterAlloc(request, saved, 0);
  const fresh = { requestId: 'computes', blockIds: saved, numComputedTokens: 0 };
  await from.step({ ...OUTPUT, newRequests: [fresh], numScheduledTokens: { computes: 25 } });
  assert.ok(from.scheduler.requestFinished(request, saved)[0]);
  let released: readonly string[] = [];
  while (released.length === 0) {
    ({ finishedSending: released } = await from.step({ ...OUTPUT, newRequests: [], numScheduledTokens: {} }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  // Six blocks of the full group, three of the window's, one state.
  assert.is(from.worker.stats().savedBlocks, 10);

  const to = open(store, () => 0xee);
  const loaded: GroupBlocks = [
    [9, 8, 7, 6, 5, 4, 3],
    [0, 0, 0, 0, 12, 11, 10],
    [0, 0, 15, 1],
  ];
  const taken = await to.ask('takes', tokens);
  assert.is(taken.offered, 24);
  to.scheduler.updateStateAfterAlloc(taken.request, loaded, 24);
  let received: readonly string[] = [];
  while (received.length === 0) {
    ({ finishedReceiving: received } = await to.step({ ...OUTPUT, newRequests: [], numScheduledTokens: {} }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (let i = 0; i < 6; i++) assert.equal(block(to.memory, 0, loaded[0][i]), block(from.memory, 0, saved[0][i]));
  for (const i of [4, 5]) assert.equal(block(to.memory, 1, loaded[1][i]), block(from.memory, 1, saved[1][i]));
  assert.equal(block(to.memory, 2, 15), block(from.memory, 2, 3));
  assert.is(to.worker.stats().loadedBlocks, 9);
  // The null blocks, and all that was not asked for, are untouched.
  for (const group of [0, 1, 2]) assert.ok(block(to.memory, group, 0).every((byte) => byte === 0xee));

  // A shorter prefix has its full blocks, but neither its window nor its state: there is nothing to begin with.
  assert.is((await to.ask('shorter', [...tokens.slice(0, 16), 1, 2, 3])).offered, 0);
  await Promise.all([from.close(), to.close()]);
  await store.close();
});

test('where any block of such a cache is lost, all that was loaded is', async () => {
  const memory = new Uint8Array(1 << 20);
  const store = new MooncakeStore({ segments: [{ name: 'objects', memory }] });
  const tokens = tokensOf(4, 17);
  const ids: GroupBlocks = [
    [1, 2, 3, 4, 5],
    [0, 0, 3, 4, 5],
    [0, 2, 3],
  ];
  const from = open(store, (i) => (i * 11 + 3) % 251);
  const { request } = await from.ask('computes', tokens);
  from.scheduler.updateStateAfterAlloc(request, ids, 0);
  const fresh = { requestId: 'computes', blockIds: ids, numComputedTokens: 0 };
  await from.step({ ...OUTPUT, newRequests: [fresh], numScheduledTokens: { computes: 17 } });
  while (from.worker.stats().savedBlocks < 7) await new Promise((resolve) => setTimeout(resolve, 1));

  const to = open(store, () => 0xee);
  const taken = await to.ask('takes', tokens);
  assert.is(taken.offered, 16);
  // One byte of the state: its object holds bytes that no other does.
  const state = block(from.memory, 2, 2);
  const at = memory.findIndex((_, i) => state.every((byte, j) => memory[i + j] === byte));
  assert.ok(at >= 0);
  memory[at + 5] ^= 1;
  to.scheduler.updateStateAfterAlloc(taken.request, ids, 16);
  let received: readonly string[] = [];
  let invalid: number[] = [];
  while (received.length === 0) {
    const report = await to.step({ ...OUTPUT, newRequests: [], numScheduledTokens: {} });
    received = report.finishedReceiving;
    invalid = [...invalid, ...report.invalidBlockIds];
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal([...new Set(invalid)].sort(), [1, 2, 3, 4]);
  await Promise.all([from.close(), to.close()]);
  await store.close();
});

test.run();
