/** Bytes that change on the wire: a hand-over fails, it never brings wrong KV. Without verification it does. */
import { TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Direction, startRelay } from '../support/relay.js';
import { tokensOf } from './harness.js';
import { GatedTransfer } from './pd-gate.js';
import { closeSide, drive, idle, side, transferId } from './pd-pair.js';

const TOKENS = tokensOf(11, 60);
/** About 120 KB of KV against a few KB of messages. */
const SHAPE = { layers: 4, cellBytes: 64 };

/** One hand-over through a relay that flips a bit of the byte at `position` of what goes in `direction`. */
async function handOverFlipped(mode: 'pull' | 'push', verify: 'full' | 'off', direction: Direction, position: number) {
  const inner = await TcpTransfer.listen();
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
  const prefill = side({ ...SHAPE, transfer: () => gate, connector: options });
  const tcp = await TcpTransfer.listen();
  const decode = side({ ...SHAPE, transfer: () => tcp, connector: options });
  const prefilled = prefill.engine.add({
    tokens: TOKENS,
    kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
  });
  await drive([prefill], () => prefilled.state === 'finished');
  const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
  await drive([prefill, decode], idle([prefill, decode]));
  for (const { engine } of [prefill, decode]) assert.is(engine.freeBlocks, engine.blocks);
  await Promise.all([prefill, decode].map(closeSide));
  await relay.close();
  return {
    passed,
    corruptions: decode.engine.corruptions.length,
    loaded: decoded.externalTokens > 0,
    code: decode.failures[0]?.code,
  };
}

for (const mode of ['pull', 'push'] as const) {
  // Both go from the prefill to the decode, which opened the connection.
  test(`${mode}: whichever byte changes, nothing wrong is loaded; without verification it is`, async () => {
    const { passed, loaded } = await handOverFlipped(mode, 'full', 'down', Number.POSITIVE_INFINITY);
    assert.is(loaded, true);
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
