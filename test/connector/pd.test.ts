/** Hand-overs from prefill to decode: the bytes are those that the decode would have computed, whoever comes first. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';
import { closeSide, decodeParams, drive, handOver, idle, type Side, side, steps, transferId } from './pd-pair.js';

function clean(...sides: Side[]): void {
  for (const { engine } of sides) {
    assert.equal(engine.corruptions, []);
    assert.is(engine.freeBlocks, engine.blocks);
  }
}

for (const mode of ['pull', 'push'] as const) {
  for (const [from, to] of [
    [1, 1],
    [2, 1],
    [1, 2],
    [2, 4],
    [4, 2],
    [8, 2],
    [2, 8],
  ]) {
    test(`${mode}, ${from} ranks to ${to}: the decode computes one token of the prompt`, async () => {
      const prefill = side({ tensorParallelSize: from, role: 'producer', form: 'split' });
      const decode = side({ tensorParallelSize: to, role: 'consumer', connector: { mode } });
      for (const length of [1, 4, 13, 32]) {
        const { decoded } = await handOver(prefill, decode, tokensOf(length, length));
        assert.equal(decode.failures, []);
        assert.is(decoded.externalTokens, length);
        assert.is(decoded.forwardTokens, 1 + 3);
        assert.is(decoded.outputTokens.length, 4);
      }
      clean(prefill, decode);
      await Promise.all([closeSide(prefill), closeSide(decode)]);
    });
  }

  test(`${mode}: a decode that comes first waits for the prefill`, async () => {
    const prefill = side({ tensorParallelSize: 2 });
    const decode = side({ connector: { mode } });
    const tokens = tokensOf(1, 19);
    const transfer = transferId();
    const decoded = decode.engine.add({ tokens, maxTokens: 3, kvTransferParams: decodeParams(prefill, transfer) });
    await drive([prefill, decode], () => decoded.state === 'remote');
    await steps([prefill, decode], 20);
    assert.is(decoded.state, 'remote');
    prefill.engine.add({ tokens, kvTransferParams: { do_remote_decode: true, transfer_id: transfer } });
    await drive([prefill, decode], idle([prefill, decode]));
    assert.is(decoded.externalTokens, 19);
    clean(prefill, decode);
    await Promise.all([closeSide(prefill), closeSide(decode)]);
  });

  test(`${mode}: after a connection was lost the next hand-over has a new one`, async () => {
    const [prefill, decode] = [side({ tensorParallelSize: 2 }), side({ connector: { mode } })];
    for (const rank of [0, 1, 1]) {
      await handOver(prefill, decode, tokensOf(rank, 9));
      const peer = await decode.transfers[0].connect(prefill.transfers[rank].address);
      await peer.close();
    }
    const { decoded } = await handOver(prefill, decode, tokensOf(5, 9));
    assert.equal([decoded.externalTokens, decode.failures], [9, []]);
    clean(prefill, decode);
    await Promise.all([closeSide(prefill), closeSide(decode)]);
  });
}

test.run();
