/**
 * Layer-wise push: layers of finished blocks are at the decode before the prefill computes the next, and what arrives is
 * right whoever aborts, is preempted, computes again or lies on the way. Freed blocks are filled with noise, so a layer
 * that lands in a block after its time is noticed.
 */

import fc from 'fast-check';
import {
  type KvConnector,
  LocalTransfer,
  MooncakeConnector,
  MultiConnector,
  type SchedulerConnector,
  type WorkerConnector,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessRequest, tokensOf } from './harness.js';
import { GatedTransfer } from './pd-gate.js';
import {
  closeSide,
  counters,
  decodeParams,
  drive,
  idle,
  type Side,
  type SideOptions,
  side,
  steps,
  transferId,
} from './pd-pair.js';

const TOKENS = tokensOf(21, 19);
const LAYERS = 3;
/** Blocks of TOKENS that are full: the rest is known to be finished only at the end. */
const FULL = 4;

function clean(...sides: Side[]): void {
  for (const { engine } of sides) {
    assert.equal(engine.corruptions, []);
    assert.is(engine.freeBlocks, engine.blocks);
    assert.is(engine.idle, true);
  }
}

/** A pair whose prefill computes a block in a step. */
function pair(options: { prefill?: SideOptions; decode?: SideOptions } = {}) {
  const gate = new GatedTransfer(new LocalTransfer());
  const shape = { layers: LAYERS, maxTokensPerStep: 4 };
  const prefill = side({ ...shape, form: 'split', transfer: () => gate, ...options.prefill });
  const { connector, ...rest } = options.decode ?? {};
  const decode = side({ layers: LAYERS, ...rest, connector: { mode: 'layers', ...connector } });
  return { gate, prefill, decode, sides: [prefill, decode] };
}

/** Starts both requests at once: neither has run yet. */
function start(prefill: Side, decode: Side, tokens = TOKENS): { prefilled: HarnessRequest; decoded: HarnessRequest } {
  const transfer = transferId();
  const decoded = decode.engine.add({ tokens, maxTokens: 3, kvTransferParams: decodeParams(prefill, transfer) });
  const kvTransferParams = { do_remote_decode: true, transfer_id: transfer };
  return { decoded, prefilled: prefill.engine.add({ tokens, kvTransferParams }) };
}

const waits = (prefill: Side) => () => counters(prefill).decodesWaiting > 0;
const early = (prefill: Side) => counters(prefill).layersPushedEarly;

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

/** Offers the first two blocks of every prompt for a synchronous load, which fails. */
class BrokenStore implements KvConnector {
  readonly name = 'BrokenStore';

  createScheduler(): SchedulerConnector {
    const loads: number[] = [];
    const tried = new Set<string>();
    return {
      onNewRequest() {},
      getNumNewMatchedTokens: ({ requestId }, computed) => [computed === 0 && !tried.has(requestId) ? 8 : 0, false],
      updateStateAfterAlloc({ requestId }, [blocks], tokens) {
        if (tokens > 0) loads.push(...blocks.slice(0, 2));
        tried.add(requestId);
      },
      buildConnectorMeta: () => loads.splice(0),
      updateConnectorOutput() {},
      requestFinished: () => [false, null],
      hasPendingWork: () => false,
      setHandshakeMetadata() {},
      stats: () => ({}),
      async shutdown() {},
    };
  }

  createWorker(): WorkerConnector {
    let failing: number[] = [];
    return {
      registerKvCaches() {},
      getHandshakeMetadata: () => null,
      bindConnectorMetadata(metadata) {
        failing = metadata as number[];
      },
      clearConnectorMetadata() {},
      async handlePreemptions() {},
      startLoadKv() {},
      // Time for what is ready to be written.
      waitForLayerLoad: () => new Promise((resolve) => setTimeout(resolve, 3)),
      saveKvLayer() {},
      async waitForSave() {},
      getFinished: () => ({ sending: [], receiving: [] }),
      getBlockIdsWithLoadErrors: () => failing.splice(0),
      stats: () => ({}),
      async shutdown() {},
    };
  }
}

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

for (const stubborn of [false, true]) {
  const how = stubborn ? 'a write that cannot be stopped' : 'a write';
  for (const before of [0, 1, 2, 4]) {
    test(`either side aborted under ${how}, ${before} steps into the prefill: no block is free under it`, async () => {
      for (const who of ['prefill', 'decode'] as const) {
        const { gate, prefill, decode, sides } = pair();
        gate.stubborn = stubborn;
        const { prefilled, decoded } = start(prefill, decode);
        await drive([decode], waits(prefill));
        gate.shut('write');
        await steps([prefill], before);
        if (before > 0) await drive([decode], () => gate.waiting('write') > 0);
        if (who === 'prefill') prefill.engine.abort(prefilled);
        else decode.engine.abort(decoded);
        if (stubborn && before > 0) {
          const until = Date.now() + 100;
          await drive(who === 'prefill' ? sides : [decode], () => Date.now() > until);
          for (const { engine } of sides)
            assert.is.not(engine.freeBlocks, engine.blocks, `${who}: freed under the write`);
        }
        if (stubborn) gate.open('write');
        // Without the gate open, only a write that was stopped lets the others go on.
        else if (who === 'decode') await drive([decode], idle([decode]));
        gate.open('write');
        await drive(sides, idle(sides));
        const codes = decode.failures.map(({ code }) => code);
        assert.equal(codes, who === 'prefill' ? ['ERR_NOT_FOUND'] : []);
        if (who === 'prefill') assert.is(decoded.externalTokens, 0);
        clean(...sides);
        // The pair goes on.
        const next = start(prefill, decode);
        await drive(sides, idle(sides));
        assert.is(next.decoded.externalTokens, TOKENS.length);
        clean(...sides);
        await Promise.all(sides.map(closeSide));
      }
    });
  }

  test(`a prefill preempted under ${how} starts again, and so does what it wrote`, async () => {
    const { gate, prefill, decode, sides } = pair();
    gate.stubborn = stubborn;
    const { prefilled, decoded } = start(prefill, decode);
    await drive([decode], waits(prefill));
    await prefill.engine.step();
    await drive([decode], () => early(prefill) === LAYERS);
    gate.shut('write');
    await steps([prefill], 2);
    await drive([decode], () => gate.waiting('write') > 0);
    prefill.engine.preempt(prefilled);
    const step = prefill.engine.step();
    if (stubborn) {
      let stepped = false;
      void step.then(() => {
        stepped = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.is(stepped, false, 'the blocks were taken under the write');
      gate.open('write');
    }
    await step;
    gate.open('write');
    await drive(sides, idle(sides));
    assert.equal([decoded.externalTokens, decode.failures], [TOKENS.length, []]);
    clean(...sides);
    await Promise.all(sides.map(closeSide));
  });
}

test('a step that is computed again, as a load failed in it, is written again, after what was wrong', async () => {
  // A store that promises two blocks and fails each load: the harness computes on noise, and again.
  const gate = new GatedTransfer(new LocalTransfer());
  const connector = new MultiConnector([new MooncakeConnector({ transfer: gate }), new BrokenStore()]);
  const engine = new HarnessEngine({ connector, layers: LAYERS, maxTokensPerStep: 4 });
  const prefill: Side = { engine, transfers: [gate], failures: [] };
  const decode = side({ layers: LAYERS, connector: { mode: 'layers' } });
  const { prefilled, decoded } = start(prefill, decode);
  await drive([decode], () =>
    Object.entries(counters(prefill)).some(([name, n]) => /decodesWaiting/.test(name) && n > 0),
  );
  const written: number[] = [];
  gate.onMoved = () => written.push(prefill.engine.steps);
  await prefill.engine.step();
  await drive([decode], () => written.length === LAYERS);
  await drive([prefill, decode], idle([prefill, decode]));
  assert.ok(prefilled.failedBlocks > 0, 'no load failed');
  assert.equal(decode.failures, []);
  assert.is(decoded.externalTokens, TOKENS.length);
  assert.equal(decode.engine.corruptions, []);
  await Promise.all([prefill, decode].map(closeSide));
});

test('a decode that gives up before the prefill ends: what it wrote early was for nothing, and hurts nobody', async () => {
  const { prefill, decode, sides } = pair({ decode: { connector: { loadTimeoutMs: 60 } } });
  const { decoded, prefilled } = start(prefill, decode);
  await drive([decode], waits(prefill));
  await prefill.engine.step();
  await drive([decode], () => decoded.state === 'finished');
  assert.is(decode.failures[0].code, 'ERR_TIMEOUT');
  assert.is(prefilled.state, 'running');
  await drive(sides, idle(sides));
  assert.is(decoded.externalTokens, 0);
  assert.is(counters(prefill).handoversReleased, 1);
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

test('two decodes of one transfer id: the first gets the layers, the second is refused', async () => {
  const { prefill, decode, sides } = pair();
  const other = side({ layers: LAYERS, connector: { mode: 'layers' } });
  const all = [...sides, other];
  const { decoded } = start(prefill, decode);
  await drive([decode], waits(prefill));
  const kvTransferParams = decoded.kvTransferParams!;
  const second = other.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams });
  await drive([other], () => counters(prefill).decodesWaiting === 2);
  await drive(all, idle(all));
  assert.equal([decoded.externalTokens, second.externalTokens], [TOKENS.length, 0]);
  assert.ok(early(prefill) <= FULL * LAYERS, 'layers went to both');
  assert.equal(
    other.failures.map(({ code }) => code),
    ['ERR_NOT_FOUND'],
  );
  clean(...all);
  await Promise.all(all.map(closeSide));
});

test('a decode of another prompt gets no layer of this one', async () => {
  const { prefill, decode, sides } = pair();
  const transfer = transferId();
  const tokens = [...TOKENS.slice(0, 18), 1];
  const decoded = decode.engine.add({ tokens, maxTokens: 3, kvTransferParams: decodeParams(prefill, transfer) });
  await drive([decode], waits(prefill));
  prefill.engine.add({ tokens: TOKENS, kvTransferParams: { do_remote_decode: true, transfer_id: transfer } });
  await drive(sides, idle(sides));
  assert.equal([decoded.externalTokens, early(prefill)], [0, 0]);
  assert.is(decode.failures[0].code, 'ERR_LAYOUT_MISMATCH');
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

test('both shut down in the middle', async () => {
  for (const first of ['prefill', 'decode'] as const) {
    const { gate, prefill, decode } = pair();
    start(prefill, decode);
    await drive([decode], waits(prefill));
    gate.shut('write');
    await steps([prefill], 2);
    await drive([decode], () => gate.waiting('write') > 0);
    const [one, two] = first === 'prefill' ? [prefill, decode] : [decode, prefill];
    await closeSide(one);
    await closeSide(two);
  }
});

type Action = { what: 'add' | 'prefill' | 'decode' | 'abort prefill' | 'abort decode' | 'preempt' | 'wait'; n: number };
const action: fc.Arbitrary<Action> = fc.record({
  what: fc.constantFrom<Action['what'][]>(
    'add',
    'prefill',
    'prefill',
    'prefill',
    'decode',
    'decode',
    'abort prefill',
    'abort decode',
    'preempt',
    'wait',
  ),
  n: fc.nat(999),
});

test('random requests, steps, aborts and preemptions: no wrong byte, no block lost', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(1, 2, 4),
    fc.constantFrom(1, 2, 4),
    fc.constantFrom(3, 4, 9),
    fc.array(action, { minLength: 20, maxLength: 60 }),
    async (from, to, maxTokensPerStep, actions) => {
      // Few blocks: what one request loses the next one has.
      const { prefill, decode, sides } = pair({
        prefill: { tensorParallelSize: from, maxTokensPerStep, blocks: 14 },
        decode: { tensorParallelSize: to, blocks: 14 },
      });
      const [given, taken]: HarnessRequest[][] = [[], []];
      const pick = <T>(list: readonly T[], n: number): T | undefined => list[n % Math.max(1, list.length)];
      for (const { what, n } of actions) {
        if (what === 'add') {
          const { prefilled, decoded } = start(prefill, decode, tokensOf(n, 1 + (n % 30)));
          given.push(prefilled);
          taken.push(decoded);
        } else if (what === 'prefill') await prefill.engine.step();
        else if (what === 'decode') await decode.engine.step();
        else if (what === 'wait') await new Promise((resolve) => setTimeout(resolve, n % 4));
        else if (what === 'preempt') given.forEach((one, i) => i === n % given.length && prefill.engine.preempt(one));
        else if (what === 'abort prefill' && n % 3 === 0 && given.length > 0) prefill.engine.abort(pick(given, n)!);
        else if (what === 'abort decode' && n % 3 === 0 && taken.length > 0) decode.engine.abort(pick(taken, n)!);
      }
      await drive(sides, idle(sides));
      clean(...sides);
      for (const [i, one] of taken.entries()) {
        if (!one.aborted) assert.is(one.outputTokens.length, 3, `decode ${i}`);
      }
      await Promise.all(sides.map(closeSide));
    },
  );
  await fc.assert(property, { numRuns: 40 });
});

test.run();
