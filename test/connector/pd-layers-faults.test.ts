/**
 * Layer-wise push when something happens on the way: aborts, preemption, steps that are computed again, decodes that do not
 * fit. Freed blocks are filled with noise, so a layer that lands in a block after its time is noticed.
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
import { clean, early, FULL, LAYERS, pair, start, TOKENS, waits } from './pd-layers-pair.js';
import { closeSide, counters, decodeParams, drive, idle, type Side, side, steps, transferId } from './pd-pair.js';

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
      const pick = (list: readonly HarnessRequest[], n: number) => list[n % list.length];
      for (const { what, n } of actions) {
        if (what === 'add') {
          const { prefilled, decoded } = start(prefill, decode, tokensOf(n, 1 + (n % 30)));
          given.push(prefilled);
          taken.push(decoded);
        } else if (what === 'prefill') await prefill.engine.step();
        else if (what === 'decode') await decode.engine.step();
        else if (what === 'wait') await new Promise((resolve) => setTimeout(resolve, n % 4));
        else if (what === 'preempt' && given.length > 0) prefill.engine.preempt(pick(given, n));
        else if (what === 'abort prefill' && n % 3 === 0 && given.length > 0) prefill.engine.abort(pick(given, n));
        else if (what === 'abort decode' && n % 3 === 0 && taken.length > 0) decode.engine.abort(pick(taken, n));
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
