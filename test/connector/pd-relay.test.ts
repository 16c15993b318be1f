/** Bytes that change on the wire: a hand-over fails, it never brings wrong KV. Without verification it does. */
import { type KvTransferParams, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Direction, startRelay } from '../support/relay.js';
import { type HarnessRequest, tokensOf } from './harness.js';
import { GatedTransfer } from './pd-gate.js';
import { closeSide, counters, decodeParams, drive, idle, side, steps, transferId } from './pd-pair.js';

const TOKENS = tokensOf(11, 60);
/** About 120 KB of KV against a few KB of messages. */
const SHAPE = { layers: 4, cellBytes: 64 };

type Mode = 'pull' | 'push' | 'layers';

/**
 * One hand-over through a relay that flips a bit of the byte at `position` of what goes in `direction`. Layer by layer the
 * decode comes before the prefill.
 */
async function handOverFlipped(mode: Mode, verify: 'full' | 'off', direction: Direction, position: number) {
  // By the connection alone, which passes through the relay.
  const inner = await TcpTransfer.listen({ native: false });
  let passed = 0;
  const relay = await startRelay(Number(new URL(inner.address).port), {
    onChunk(way, chunk) {
      if (way !== direction) return chunk;
      const at = position - passed;
      passed += chunk.length;
      if (at >= 0 && at < chunk.length) chunk[at] ^= 4;
      return chunk;
    },
  });
  const gate = new GatedTransfer(inner);
  gate.address = `tcp://127.0.0.1:${relay.port}`;
  const options = { mode, verify, abortTimeoutMs: 300, loadTimeoutMs: 3000 };
  const prefill = side({ ...SHAPE, maxTokensPerStep: 16, transfer: () => gate, connector: options });
  const tcp = await TcpTransfer.listen({ native: false });
  const decode = side({ ...SHAPE, transfer: () => tcp, connector: options });
  const transfer = transferId();
  const kvTransferParams = { do_remote_decode: true, transfer_id: transfer };
  const take = (params: KvTransferParams) =>
    decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: params });
  let decoded: HarnessRequest;
  if (mode === 'layers') {
    decoded = take(decodeParams(prefill, transfer));
    // Who is told something else than was said may never come so far.
    const soon = (done: () => boolean) => drive([decode], () => done() || decode.failures.length > 0, 5000);
    await soon(() => counters(prefill).decodesWaiting === 1);
    prefill.engine.add({ tokens: TOKENS, kvTransferParams });
    await steps([prefill], 2);
    await soon(() => counters(prefill).layersPushedEarly > 0);
  } else {
    const prefilled = prefill.engine.add({ tokens: TOKENS, kvTransferParams });
    await drive([prefill], () => prefilled.state === 'finished');
    decoded = take(prefilled.params!);
  }
  await drive([prefill, decode], idle([prefill, decode]));
  for (const { engine } of [prefill, decode]) assert.is(engine.freeBlocks, engine.blocks);
  await Promise.all([prefill, decode].map(closeSide));
  await relay.close();
  return {
    passed,
    corruptions: decode.engine.corruptions.length,
    loaded: decoded.externalTokens > 0,
    code: decode.failures[0]?.code,
    early: counters(decode).bytesLoadedEarly,
  };
}

for (const mode of ['pull', 'push', 'layers'] as const) {
  // Both go from the prefill to the decode, which opened the connection.
  test(`${mode}: whichever byte changes, nothing wrong is loaded; without verification it is`, async () => {
    const { passed, loaded, early } = await handOverFlipped(mode, 'full', 'down', Number.POSITIVE_INFINITY);
    assert.is(loaded, true);
    assert.is(early > 0, mode === 'layers');
    const codes = new Set<string | undefined>();
    let wrong = 0;
    for (let i = 0; i < 24; i++) {
      const position = Math.floor(((i + 0.5) / 24) * passed);
      const strict = await handOverFlipped(mode, 'full', 'down', position);
      assert.is(strict.corruptions, 0, `byte ${position}`);
      codes.add(strict.code);
      if (i % 4 === 2) wrong += (await handOverFlipped(mode, 'off', 'down', position)).corruptions;
    }
    assert.ok(codes.has('ERR_CORRUPT'), `the codes were ${[...codes].join(', ')}`);
    assert.ok(wrong > 0, 'the relay changes no payload: the test proves nothing');
  });

  test(`${mode}: whichever byte of the decode's messages changes, nothing wrong is loaded`, async () => {
    const { passed } = await handOverFlipped(mode, 'full', 'up', Number.POSITIVE_INFINITY);
    for (let i = 0; i < 24; i++) {
      const position = Math.floor(((i + 0.5) / 24) * passed);
      const { corruptions } = await handOverFlipped(mode, 'full', 'up', position);
      assert.is(corruptions, 0, `byte ${position}`);
    }
  });
}

test.run();
