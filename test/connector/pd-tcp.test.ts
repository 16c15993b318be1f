/** Hand-overs between processes: killed and stopped at every step, and over a network that changes bytes. */
import { TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';
import { GatedTransfer, type Step } from './pd-gate.js';
import { closeSide, counters, drive, idle, type Side, type SideOptions, side, transferId } from './pd-pair.js';
import { Child } from './pd-process.js';

const TOKENS = tokensOf(9, 21);
const MODES = ['pull', 'push'] as const;

async function tcpSide(options: SideOptions = {}) {
  const ranks = options.tensorParallelSize ?? 1;
  const inner = await Promise.all(Array.from({ length: ranks }, () => TcpTransfer.listen()));
  const gates = inner.map((transfer) => new GatedTransfer(transfer));
  return { gates, ...side({ ...options, transfer: (rank) => gates[rank] }) };
}

function clean({ engine }: Side): void {
  assert.equal(engine.corruptions, []);
  assert.is(engine.freeBlocks, engine.blocks);
}

const prefillParams = () => ({ do_remote_decode: true, transfer_id: transferId() });

for (const mode of MODES) {
  for (const [from, to] of [
    [1, 2],
    [2, 1],
  ]) {
    test(`${mode}: from a process of ${from} ranks to one of ${to}`, async () => {
      const { child } = await Child.start({
        mode,
        tensorParallelSize: from,
        form: 'split',
        engineId: `p-${mode}-${from}`,
      });
      const decode = await tcpSide({ tensorParallelSize: to, connector: { mode } });
      for (let round = 0; round < 3; round++) {
        child.add({ tokens: TOKENS, kvTransferParams: prefillParams() });
        const { params } = await child.next('finished');
        const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 4, kvTransferParams: params! });
        await drive([decode], idle([decode]));
        assert.equal(decode.failures, []);
        assert.is(decoded.externalTokens, TOKENS.length);
        clean(decode);
        const { freeBlocks, blocks } = await child.next('idle');
        assert.is(freeBlocks, blocks);
      }
      await child.kill();
      await closeSide(decode);
    });
  }

  const steps: [Step, 'prefill' | 'decode'][] =
    mode === 'pull'
      ? [
          ['roster', 'decode'],
          ['take', 'decode'],
          ['read', 'decode'],
          ['done', 'decode'],
        ]
      : [
          ['push', 'decode'],
          ['rank', 'prefill'],
          ['write', 'prefill'],
        ];
  for (const [step, where] of steps) {
    for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
      // A stopped process is noticed by its silence; one step is enough for that.
      if (signal === 'SIGSTOP' && step !== 'read' && step !== 'write') continue;
      test(`${mode}: ${signal} to the prefill before ${step}: the decode computes the prompt`, async () => {
        const shut = where === 'prefill' ? step : undefined;
        const { child } = await Child.start({ mode, shut, engineId: `p-${mode}-${step}-${signal}` });
        const decode = await tcpSide({ connector: { mode } });
        const [gate] = decode.gates;
        child.add({ tokens: TOKENS, kvTransferParams: prefillParams() });
        const { params } = await child.next('finished');
        if (where === 'decode') gate.shut(step);
        const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: params! });
        await drive([decode], () => (where === 'decode' ? gate.waiting(step) > 0 : child.has('stopped')));
        if (signal === 'SIGKILL') await child.kill();
        else child.signal(signal);
        gate.open(step);
        await drive([decode], idle([decode]));
        assert.is(decoded.externalTokens, 0);
        assert.is(decode.failures[0].code, 'ERR_PEER');
        clean(decode);
        await child.kill();
        await closeSide(decode);
      });
    }
  }

  test(`${mode}: a prefill killed while the decode waits for it`, async () => {
    const { child, engineId, address } = await Child.start({ mode, engineId: `p-${mode}-waits` });
    const decode = await tcpSide({ connector: { mode } });
    const decoded = decode.engine.add({
      tokens: TOKENS,
      kvTransferParams: {
        do_remote_prefill: true,
        transfer_id: transferId(),
        remote_engine_id: engineId,
        remote_bootstrap_addr: address,
      },
    });
    await drive([decode], () => decoded.state === 'remote');
    // Long enough that it waits there for sure; if not, it is noticed all the same.
    await new Promise((resolve) => setTimeout(resolve, 200));
    await child.kill();
    await drive([decode], idle([decode]));
    assert.equal([decoded.externalTokens, decode.failures[0].code], [0, 'ERR_PEER']);
    clean(decode);
    await closeSide(decode);
  });

  const stepsOfDecode: [Step, 'prefill' | 'decode'][] =
    mode === 'pull'
      ? [
          ['read', 'decode'],
          ['done', 'decode'],
        ]
      : [
          ['rank', 'prefill'],
          ['write', 'prefill'],
        ];
  for (const [step, where] of stepsOfDecode) {
    test(`${mode}: a decode killed before ${step}: the prefill has its blocks back, long before the time-out`, async () => {
      const prefill = await tcpSide();
      const shut = where === 'decode' ? step : undefined;
      const { child } = await Child.start({ mode, shut, engineId: `d-${mode}-${step}` });
      const [gate] = prefill.gates;
      const prefilled = prefill.engine.add({ tokens: TOKENS, kvTransferParams: prefillParams() });
      await drive([prefill], () => prefilled.state === 'finished');
      if (where === 'prefill') gate.shut(step);
      child.add({ tokens: TOKENS, kvTransferParams: prefilled.params! });
      await drive([prefill], () => (where === 'prefill' ? gate.waiting(step) > 0 : child.has('stopped')));
      assert.is.not(prefill.engine.freeBlocks, prefill.engine.blocks);
      await child.kill();
      await drive([prefill], idle([prefill]));
      gate.open(step);
      assert.is(counters(prefill).handoversOrphaned, 1);
      clean(prefill);
      await closeSide(prefill);
    });
  }

  test(`${mode}: a decode killed while it waits for the prefill: the blocks are free when they are computed`, async () => {
    const prefill = await tcpSide();
    const { child } = await Child.start({ mode, engineId: `d-${mode}-waits` });
    const params = prefillParams();
    await prefill.engine.step();
    child.add({
      tokens: TOKENS,
      kvTransferParams: {
        do_remote_prefill: true,
        transfer_id: params.transfer_id,
        remote_engine_id: prefill.engine.info.engineId,
        remote_bootstrap_addr: prefill.gates[0].address,
      },
    });
    await drive([prefill], () => counters(prefill).decodesWaiting === 1);
    await child.kill();
    await drive([prefill], () => counters(prefill).decodesWaiting === 0);
    prefill.engine.add({ tokens: TOKENS, kvTransferParams: params });
    await drive([prefill], idle([prefill]));
    assert.is(counters(prefill).handoversReleased, 1);
    clean(prefill);
    await closeSide(prefill);
  });
}

/** A prompt that takes hundreds of steps, so that who is killed at its first layers is killed in the middle of it. */
const LONG = tokensOf(10, 240);
const SLOW = { layers: 3, maxTokensPerStep: 1 };

for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
  test(`layers: ${signal} to the prefill under its first early write: the decode computes the prompt`, async () => {
    const { child, engineId, address } = await Child.start({
      ...SLOW,
      mode: 'pull',
      shut: 'write',
      engineId: `p-layers-${signal}`,
    });
    const decode = await tcpSide({ layers: 3, connector: { mode: 'layers' } });
    const params = prefillParams();
    const decoded = decode.engine.add({
      tokens: LONG,
      maxTokens: 3,
      kvTransferParams: {
        do_remote_prefill: true,
        transfer_id: params.transfer_id,
        remote_engine_id: engineId,
        remote_bootstrap_addr: address,
      },
    });
    await drive([decode], () => decoded.state === 'remote');
    child.add({ tokens: LONG, kvTransferParams: params });
    await drive([decode], () => child.has('stopped'));
    if (signal === 'SIGKILL') await child.kill();
    else child.signal(signal);
    await drive([decode], idle([decode]));
    assert.equal([decoded.externalTokens, decode.failures[0].code], [0, 'ERR_PEER']);
    clean(decode);
    await child.kill();
    await closeSide(decode);
  });
}

test('layers: a decode killed under an early write: the prefill goes on, and its blocks are free when it ends', async () => {
  const prefill = await tcpSide({ ...SLOW });
  const { child } = await Child.start({ layers: 3, mode: 'layers', engineId: 'd-layers' });
  const [gate] = prefill.gates;
  const params = prefillParams();
  child.add({
    tokens: LONG,
    kvTransferParams: {
      do_remote_prefill: true,
      transfer_id: params.transfer_id,
      remote_engine_id: prefill.engine.info.engineId,
      remote_bootstrap_addr: gate.address,
    },
  });
  await drive([], () => counters(prefill).decodesWaiting === 1);
  const prefilled = prefill.engine.add({ tokens: LONG, kvTransferParams: params });
  await drive([prefill], () => counters(prefill).layersPushedEarly >= 6);
  gate.shut('write');
  await drive([prefill], () => gate.waiting('write') > 0);
  await child.kill();
  await drive([prefill], () => counters(prefill).decodesWaiting === 0);
  assert.is(prefilled.state, 'running');
  gate.open('write');
  await drive([prefill], idle([prefill]));
  assert.is(prefilled.forwardTokens, LONG.length);
  assert.is(counters(prefill).handoversReleased, 1);
  clean(prefill);
  await closeSide(prefill);
});

test.run();
