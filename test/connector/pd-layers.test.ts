/**
 * Layer-wise push: layers of finished blocks are at the decode before the prefill computes the next, for every pair of
 * sizes, and whenever the decode comes.
 */
import {
  type KvConnector,
  LocalTransfer,
  MooncakeConnector,
  type SchedulerConnector,
  type WorkerConnector,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from './harness.js';
import { clean, early, FULL, LAYERS, pair, start, TOKENS, waits } from './pd-layers-pair.js';
import { closeSide, counters, decodeParams, drive, idle, type Side, side, steps, transferId } from './pd-pair.js';

test('the order of events: every layer of a step is at the decode before the prefill computes the next step', async () => {
  const { prefill, decode, sides } = pair();
  const { prefilled, decoded } = start(prefill, decode);
  await drive([decode], waits(prefill));
  for (let step = 1; step <= FULL; step++) {
    await prefill.engine.step();
    // The prefill stands still meanwhile.
    await drive([decode], () => early(prefill) === step * LAYERS);
    assert.is(prefilled.state, 'running');
  }
  await drive(sides, idle(sides));
  assert.equal([decoded.externalTokens, decode.failures], [TOKENS.length, []]);
  const { bytesLoaded, bytesLoadedEarly, bytesVerified } = counters(decode);
  assert.equal(
    [bytesLoadedEarly, bytesVerified],
    [(bytesLoaded * 16) / 19, bytesLoaded],
    'each byte once, and checked',
  );
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

/** A connector whose worker lets a test stop the forward pass before a layer. */
function stopped(inner: KvConnector, before: (layer: number) => Promise<void>): KvConnector {
  return {
    name: inner.name,
    createScheduler: (engine): SchedulerConnector => inner.createScheduler(engine),
    createWorker: (engine, rank): WorkerConnector => {
      const worker = inner.createWorker(engine, rank);
      const waitForLayerLoad = worker.waitForLayerLoad.bind(worker);
      worker.waitForLayerLoad = async (layer) => {
        await waitForLayerLoad(layer);
        await before(layer);
      };
      return worker;
    },
  };
}

test('the order of events: a layer is at the decode before the next layer of the same step is computed', async () => {
  const transfer = new LocalTransfer();
  const until = async (done: () => boolean) => {
    while (!done()) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  const order: string[] = [];
  const connector = stopped(new MooncakeConnector({ transfer }), async (layer) => {
    order.push(`compute ${layer}`);
    if (layer === 0) return;
    await until(() => early(prefill) === layer);
    order.push(`moved ${layer - 1}`);
  });
  const engine = new HarnessEngine({ connector, layers: LAYERS });
  const prefill: Side = { engine, transfers: [transfer], failures: [] };
  const decode = side({ layers: LAYERS, connector: { mode: 'layers' } });
  const { decoded } = start(prefill, decode);
  await drive([decode], waits(prefill));
  await drive([prefill, decode], idle([prefill, decode]));
  assert.equal(order, ['compute 0', 'compute 1', 'moved 0', 'compute 2', 'moved 1']);
  assert.is(decoded.externalTokens, TOKENS.length);
  clean(prefill, decode);
  await Promise.all([prefill, decode].map(closeSide));
});

for (const [from, to] of [
  [2, 1],
  [1, 2],
  [2, 4],
  [8, 2],
]) {
  test(`${from} ranks to ${to}, whenever the decode comes`, async () => {
    const sizes = { prefill: { tensorParallelSize: from }, decode: { tensorParallelSize: to } };
    const { prefill, decode, sides } = pair(sizes);
    // Its ranks hear of each other in a step.
    await steps([prefill], 1);
    for (const before of [0, 1, 3, 5]) {
      const transfer = transferId();
      const tokens = tokensOf(30 + before, 19);
      const prefilled = prefill.engine.add({
        tokens,
        kvTransferParams: { do_remote_decode: true, transfer_id: transfer },
      });
      await steps([prefill], before);
      const kvTransferParams = decodeParams(prefill, transfer);
      const decoded = decode.engine.add({ tokens, maxTokens: 3, kvTransferParams });
      const sent = early(prefill);
      if (prefilled.state !== 'finished') {
        await drive([decode], waits(prefill));
        await steps([prefill], 1);
        await drive([decode], () => early(prefill) > sent);
        await drive([prefill], () => prefilled.state === 'finished');
      }
      await drive(sides, idle(sides));
      assert.equal([decoded.externalTokens, decode.failures], [tokens.length, []]);
      assert.is(early(prefill) > sent, before < 5, `after ${before} steps`);
      clean(...sides);
    }
    await Promise.all(sides.map(closeSide));
  });
}

test('caches of other block sizes: what fills blocks of both goes early', async () => {
  const { prefill, decode, sides } = pair({
    prefill: { blockSize: 4, hash: { blockSize: 4 } },
    decode: { blockSize: 8, hash: { blockSize: 4 } },
  });
  const { decoded } = start(prefill, decode);
  await drive([decode], waits(prefill));
  await steps([prefill], 3);
  await drive([decode], () => early(prefill) === LAYERS);
  await drive(sides, idle(sides));
  assert.equal([decoded.externalTokens, decode.failures], [TOKENS.length, []]);
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

test('what the decode has already is not written early either', async () => {
  const { prefill, decode, sides } = pair({ decode: { localPrefixCache: true } });
  const other = decode.engine.add({ tokens: TOKENS.slice(0, 9), maxTokens: 60 });
  await drive([decode], () => other.outputTokens.length > 1);
  const { decoded } = start(prefill, decode);
  await drive([decode], waits(prefill));
  await steps([prefill], FULL);
  // The third and fourth block: keys and values of 8 bytes of 4 heads.
  await drive([decode], () => counters(prefill).bytesPushedEarly === 8 * LAYERS * 2 * 8 * 4);
  await drive(sides, () => decoded.state === 'finished');
  assert.equal([decoded.localTokens, decoded.externalTokens, decode.failures], [8, 11, []]);
  decode.engine.abort(other);
  await drive(sides, idle(sides));
  assert.is(counters(decode).bytesLoadedEarly, (counters(decode).bytesLoaded * 8) / 11);
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

test.run();
