/**
 * Aborts and time-outs at every step of a hand-over: the other side hears of it, all blocks come back, and what is
 * decoded in the end is right. Freed blocks are filled with noise, so a transfer that goes on after them is noticed.
 */
import { LocalTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';
import { GatedTransfer, type Step } from './pd-gate.js';
import {
  closeSide,
  counters,
  decodeParams,
  drive,
  handOver,
  idle,
  type Side,
  side,
  steps,
  transferId,
} from './pd-pair.js';

const MODES = ['pull', 'push', 'layers'] as const;
type Mode = (typeof MODES)[number];
const TOKENS = tokensOf(7, 18);

function clean(...sides: Side[]): void {
  for (const { engine } of sides) {
    assert.equal(engine.corruptions, []);
    assert.is(engine.freeBlocks, engine.blocks);
    assert.is(engine.idle, true);
  }
}

/** A pair whose transfers can be stopped. */
function gatedPair(mode: Mode, options: { abortTimeoutMs?: number; loadTimeoutMs?: number } = {}) {
  const gates = { prefill: new GatedTransfer(new LocalTransfer()), decode: new GatedTransfer(new LocalTransfer()) };
  const prefill = side({ transfer: () => gates.prefill, connector: options });
  const decode = side({ transfer: () => gates.decode, connector: { mode, ...options }, form: 'split' });
  return { gates, prefill, decode, sides: [prefill, decode] };
}

/** The steps of a hand-over, and whose transfer stands before them. */
const PUSHED: [Step, 'prefill' | 'decode'][] = [
  ['connect', 'decode'],
  ['roster', 'decode'],
  ['push', 'decode'],
  ['rank', 'prefill'],
  ['segment', 'prefill'],
  ['write', 'prefill'],
];
const STEPS: Record<Mode, [Step, 'prefill' | 'decode'][]> = {
  pull: [
    ['connect', 'decode'],
    ['roster', 'decode'],
    ['segment', 'decode'],
    ['take', 'decode'],
    ['read', 'decode'],
    ['done', 'decode'],
  ],
  push: PUSHED,
  layers: PUSHED,
};

for (const mode of MODES) {
  for (const [step, where] of STEPS[mode]) {
    test(`${mode}: a decode aborted before ${step} gives both sides their blocks back, long before the time-out`, async () => {
      const { gates, prefill, decode, sides } = gatedPair(mode);
      const transfer = transferId();
      const prefilled = prefill.engine.add({
        tokens: TOKENS,
        kvTransferParams: { do_remote_decode: true, transfer_id: transfer },
      });
      await drive([prefill], () => prefilled.state === 'finished');
      gates[where].shut(step);
      const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: prefilled.params! });
      await drive(sides, () => gates[where].waiting(step) > 0);
      assert.is.not(prefill.engine.freeBlocks, prefill.engine.blocks, 'the prefill keeps its blocks');
      decode.engine.abort(decoded);
      await steps(sides, 5);
      gates[where].open(step);
      await drive(sides, idle(sides));
      clean(...sides);
      assert.equal(decode.failures, []);
      assert.is(counters(prefill).handoversReleased, 1);
      // The pair goes on.
      const { decoded: next } = await handOver(prefill, decode, TOKENS);
      assert.is(next.externalTokens, TOKENS.length);
      clean(...sides);
      await Promise.all(sides.map(closeSide));
    });

    test(`${mode}: a load that stands before ${step} too long fails, and is computed`, async () => {
      const { gates, prefill, decode, sides } = gatedPair(mode, { loadTimeoutMs: 60 });
      const transfer = transferId();
      const prefilled = prefill.engine.add({
        tokens: TOKENS,
        kvTransferParams: { do_remote_decode: true, transfer_id: transfer },
      });
      await drive([prefill], () => prefilled.state === 'finished');
      gates[where].shut(step);
      const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
      await drive(sides, () => decoded.state === 'finished');
      gates[where].open(step);
      await drive(sides, idle(sides));
      assert.is(decoded.externalTokens, 0);
      assert.is(decode.failures[0].code, 'ERR_TIMEOUT');
      clean(...sides);
      await Promise.all(sides.map(closeSide));
    });
  }

  test(`${mode}: a decode aborted before it is scheduled, and before the prefill ends, frees the prefill`, async () => {
    const { prefill, decode, sides } = gatedPair(mode);
    for (const stepsOfDecode of [0, 1, 3]) {
      const transfer = transferId();
      const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: decodeParams(prefill, transfer) });
      await steps(sides, stepsOfDecode);
      decode.engine.abort(decoded);
      await drive([decode], idle([decode]));
      await new Promise((resolve) => setTimeout(resolve, 10));
      prefill.engine.add({ tokens: TOKENS, kvTransferParams: { do_remote_decode: true, transfer_id: transfer } });
      await drive(sides, idle(sides));
      clean(...sides);
    }
    assert.equal(decode.failures, []);
    assert.is(counters(prefill).handoversReleased, 3);
    await Promise.all(sides.map(closeSide));
  });

  test(`${mode}: an aborted prefill tells the decode that waits, which computes the prompt`, async () => {
    for (const before of [0, 1, 2]) {
      const { prefill, decode, sides } = gatedPair(mode);
      const transfer = transferId();
      const decoded = decode.engine.add({
        tokens: TOKENS,
        maxTokens: 3,
        kvTransferParams: decodeParams(prefill, transfer),
      });
      await drive(sides, () => counters(prefill).decodesWaiting === 1);
      const kvTransferParams = { do_remote_decode: true, transfer_id: transfer };
      const prefilled = prefill.engine.add({ tokens: TOKENS, kvTransferParams, maxTokens: 50 });
      await steps(sides, before);
      // An output token proves that the prompt is computed; before there is none it is not.
      const computed = prefilled.outputTokens.length > 0;
      prefill.engine.abort(prefilled);
      await drive(sides, () => decoded.state === 'finished');
      await drive(sides, idle(sides));
      assert.is(decoded.externalTokens, computed ? TOKENS.length : 0);
      assert.equal(
        decode.failures.map(({ code }) => code),
        computed ? [] : ['ERR_NOT_FOUND'],
      );
      clean(...sides);
      await Promise.all(sides.map(closeSide));
    }
  });

  test(`${mode}: blocks that no decode fetches come back after the time-out; who comes later computes`, async () => {
    const { prefill, decode, sides } = gatedPair(mode, { abortTimeoutMs: 40 });
    const transfer = transferId();
    const prefilled = await prefill.engine.run({
      tokens: TOKENS,
      kvTransferParams: { do_remote_decode: true, transfer_id: transfer },
    });
    clean(prefill);
    assert.is(counters(prefill).handoversExpired, 1);
    const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: prefilled.params! });
    await drive(sides, idle(sides));
    assert.is(decoded.externalTokens, 0);
    assert.match(decode.failures[0].message, /was not fetched within 40 ms/);
    clean(...sides);
    await Promise.all(sides.map(closeSide));
  });

  test(`${mode}: blocks whose time runs out while they are being moved are not loaded`, async () => {
    const { gates, prefill, decode, sides } = gatedPair(mode, { abortTimeoutMs: 150 });
    const [step, where] = mode === 'pull' ? (['read', 'decode'] as const) : (['write', 'prefill'] as const);
    const prefilled = prefill.engine.add({
      tokens: TOKENS,
      kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
    });
    await drive([prefill], () => prefilled.state === 'finished');
    gates[where].shut(step);
    const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
    await drive(sides, () => gates[where].waiting(step) > 0);
    // The prefill frees its blocks, which are filled with noise: that is what the read then finds.
    await drive(sides, () => prefill.engine.freeBlocks === prefill.engine.blocks);
    gates[where].open(step);
    await drive(sides, idle(sides));
    assert.is(decoded.externalTokens, 0);
    assert.is(decode.failures[0].code, 'ERR_NOT_FOUND');
    clean(...sides);
    await Promise.all(sides.map(closeSide));
  });
}

test('push: neither side frees blocks under a write that cannot be stopped', async () => {
  for (const ending of ['aborted', 'expired', 'failed'] as const) {
    const { gates, prefill, decode, sides } = gatedPair('push', {
      abortTimeoutMs: ending === 'expired' ? 100 : 60_000,
      loadTimeoutMs: ending === 'failed' ? 100 : 60_000,
    });
    gates.prefill.stubborn = true;
    const prefilled = prefill.engine.add({
      tokens: TOKENS,
      kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
    });
    await drive([prefill], () => prefilled.state === 'finished');
    gates.prefill.shut('write');
    const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: prefilled.params! });
    await drive(sides, () => gates.prefill.waiting('write') > 0);
    if (ending === 'aborted') decode.engine.abort(decoded);
    const until = Date.now() + 200;
    await drive(sides, () => Date.now() > until);
    for (const { engine } of sides) assert.is.not(engine.freeBlocks, engine.blocks, `${ending}: freed under the write`);
    gates.prefill.open('write');
    await drive(sides, idle(sides));
    clean(...sides);
    await Promise.all(sides.map(closeSide));
  }
});

test('push: a write that cannot be stopped keeps no other decode from giving up', async () => {
  const { gates, prefill, decode, sides } = gatedPair('push');
  const other = side({ connector: { mode: 'push' } });
  gates.prefill.stubborn = true;
  const kvTransferParams = { do_remote_decode: true, transfer_id: transferId() };
  const prefilled = prefill.engine.add({ tokens: TOKENS, kvTransferParams });
  await drive([prefill], () => prefilled.state === 'finished');
  gates.prefill.shut('write');
  const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: prefilled.params! });
  await drive(sides, () => gates.prefill.waiting('write') > 0);
  decode.engine.abort(decoded);
  const waiting = other.engine.add({ tokens: TOKENS, kvTransferParams: decodeParams(prefill, transferId()) });
  await drive([...sides, other], () => counters(prefill).decodesWaiting === 1);
  other.engine.abort(waiting);
  // Less than a release waits for its answer.
  await drive([...sides, other], idle([other]), 2500);
  assert.is(gates.prefill.waiting('write'), 1);
  gates.prefill.open('write');
  await drive([...sides, other], idle([...sides, other]));
  clean(...sides, other);
  await Promise.all([...sides, other].map(closeSide));
});

test.run();
