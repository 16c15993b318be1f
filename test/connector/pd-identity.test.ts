/** What a transfer id does not prove: the engine behind an address, its cache, the prompt, the request. */
import { KvLayout, LocalTransfer, MooncakeConnector, MooncakeError, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type HarnessRequest, tokensOf } from './harness.js';
import { GatedTransfer } from './pd-gate.js';
import {
  closeSide,
  counters,
  decodeParams,
  drive,
  handOver,
  idle,
  type Side,
  type SideOptions,
  side,
  steps,
  transferId,
} from './pd-pair.js';

const TOKENS = tokensOf(3, 22);

function clean(...sides: Side[]): void {
  for (const { engine } of sides) {
    assert.equal(engine.corruptions, []);
    assert.is(engine.freeBlocks, engine.blocks);
  }
}

const refusals: [string, SideOptions, SideOptions, string][] = [
  ['another model', { model: 'one' }, { model: 'two' }, 'model'],
  ['another hash seed', { hash: { seed: '0' } }, { hash: { seed: '1' } }, 'hash.seed'],
  ['another hash', {}, { hash: { algorithm: 'sha256' } }, 'hash.algorithm'],
  ['another block size', { blockSize: 4 }, { blockSize: 8 }, 'hash.blockSize'],
  ['other heads', { heads: 4 }, { heads: 8 }, 'groups[0].heads'],
  ['fewer layers', { layers: 1 }, { layers: 2 }, 'sources'],
  ['other cells', { cellBytes: 8 }, { cellBytes: 16 }, 'groups[0].tensors.k.elements'],
];
for (const mode of ['pull', 'push'] as const) {
  for (const [name, ofPrefill, ofDecode, field] of refusals) {
    test(`${mode}: ${name} is refused by name; the prefill has its blocks back at once`, async () => {
      const prefill = side({ ...ofPrefill, tensorParallelSize: 2 });
      const decode = side({ ...ofDecode, connector: { mode } });
      const { decoded } = await handOver(prefill, decode, TOKENS);
      assert.is(decoded.externalTokens, 0);
      assert.is(decoded.forwardTokens, TOKENS.length + 3);
      assert.equal(
        decode.failures.map(({ code, argument }) => [code, argument]),
        [['ERR_LAYOUT_MISMATCH', field]],
      );
      clean(prefill, decode);
      await Promise.all([prefill, decode].map(closeSide));
    });
  }

  test(`${mode}: another prompt under the same transfer id is refused, shorter or of other tokens or keys`, async () => {
    const other = [...TOKENS.slice(0, -1), TOKENS.at(-1)! + 1];
    const salted = { tokens: TOKENS, extraKeys: [['salt']], adapter: 'salt' };
    for (const [request, field] of [
      [{ tokens: TOKENS.slice(0, -1) }, 'numPromptTokens'],
      [{ tokens: other }, 'prompt'],
      [salted, 'prompt'],
    ] as const) {
      const [prefill, decode] = [side(), side({ connector: { mode } })];
      const prefilled = prefill.engine.add({
        tokens: TOKENS,
        kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
      });
      await drive([prefill], () => prefilled.state === 'finished');
      const decoded = decode.engine.add({ ...request, maxTokens: 3, kvTransferParams: prefilled.params! });
      await drive([prefill, decode], idle([prefill, decode]));
      assert.is(decoded.externalTokens, 0);
      assert.equal(
        decode.failures.map(({ argument }) => argument),
        [field],
      );
      clean(prefill, decode);
      await Promise.all([prefill, decode].map(closeSide));
    }
  });

  test(`${mode}: a prefill engine that was restarted at its address is not taken for the old one`, async () => {
    const decode = side({ connector: { mode } });
    for (const engineId of ['prefill-a', 'prefill-b']) {
      for (const known of [false, true]) {
        const name = `restart-${mode}-${engineId}-${known}`;
        const before = side({ engineId: 'prefill-a', transfer: () => new LocalTransfer({ name }) });
        if (known) await handOver(before, decode, TOKENS);
        const prefilled = before.engine.add({
          tokens: TOKENS,
          kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
        });
        await drive([before], () => prefilled.state === 'finished');
        await closeSide(before);
        const after = side({ engineId, transfer: () => new LocalTransfer({ name }) });
        const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
        await drive([after, decode], idle([after, decode]));
        assert.is(decoded.externalTokens, 0);
        const failure = decode.failures.splice(0).at(-1)!;
        assert.is(failure.code, 'ERR_NOT_FOUND');
        assert.is(failure.argument, engineId === 'prefill-a' ? 'generation' : 'engine');
        // The new one is used as soon as a router says so.
        const { decoded: next } = await handOver(after, decode, TOKENS);
        assert.is(next.externalTokens, TOKENS.length);
        clean(after, decode);
        await closeSide(after);
      }
    }
    await closeSide(decode);
  });

  test(`${mode}: an engine that is restarted on a transfer that stays is not taken for the old one`, async () => {
    const transfer = new LocalTransfer();
    const decode = side({ connector: { mode } });
    const before = side({ engineId: 'stays', transfer: () => transfer });
    await handOver(before, decode, TOKENS);
    await before.engine.close();
    const after = side({ engineId: 'stays', transfer: () => transfer });
    const transferOf = transferId();
    const params = decodeParams(after, transferOf);
    const first = decode.engine.add({ tokens: TOKENS, kvTransferParams: params });
    await drive([after, decode], () => first.state === 'finished');
    assert.is(first.externalTokens, 0);
    assert.is(decode.failures[0].argument, 'generation');
    const { decoded } = await handOver(after, decode, TOKENS);
    assert.is(decoded.externalTokens, TOKENS.length);
    clean(after, decode);
    await Promise.all([after, decode].map(closeSide));
  });

  test(`${mode}: two decodes of one transfer id: the first has it, the second computes`, async () => {
    for (const sameEngine of [true, false]) {
      const gate = new GatedTransfer(new LocalTransfer());
      const step = mode === 'pull' ? 'done' : 'write';
      const prefill = side(mode === 'push' ? { transfer: () => gate } : {});
      const decode = side({ connector: { mode }, ...(mode === 'pull' ? { transfer: () => gate } : {}) });
      const other = sameEngine ? decode : side({ connector: { mode } });
      const sides = sameEngine ? [prefill, decode] : [prefill, decode, other];
      const prefilled = prefill.engine.add({
        tokens: TOKENS,
        kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
      });
      await drive([prefill], () => prefilled.state === 'finished');
      // The first is stopped where it has taken the blocks, but not said that it is done.
      gate.shut(step);
      const first = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
      await drive(sides, () => gate.waiting(step) > 0);
      const second = other.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
      await drive(sides, () => second.state === 'finished');
      gate.open(step);
      await drive(sides, idle(sides));
      assert.equal([first.externalTokens, second.externalTokens], [TOKENS.length, 0]);
      assert.is(other.failures[0].code, 'ERR_NOT_FOUND');
      assert.is(counters(prefill).handoversDone, 1);
      clean(...sides);
      await Promise.all(sides.map(closeSide));
    }
  });
}

test('a lease does not outlive its hand-over, though the transfer id does', async () => {
  const gates = [0, 1].map(() => new GatedTransfer(new LocalTransfer()));
  const prefill = side({ connector: { abortTimeoutMs: 500 } });
  const [late, next] = gates.map((gate) => side({ transfer: () => gate }));
  const sides = [prefill, late, next];
  const kvTransferParams = { do_remote_decode: true, transfer_id: transferId() };
  const taken: HarnessRequest[] = [];
  for (const [index, decode] of [late, next].entries()) {
    const prefilled = prefill.engine.add({ tokens: TOKENS, kvTransferParams });
    await drive([prefill], () => prefilled.state === 'finished');
    gates[index].shut('done');
    taken.push(decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! }));
    await drive(sides, () => gates[index].waiting('done') > 0);
    // The first one's time runs out, and its id is used again.
    if (index === 0) await drive(sides, () => prefill.engine.idle);
  }
  gates[0].open('done');
  await drive(sides, () => taken[0].state === 'finished');
  gates[1].open('done');
  await drive(sides, idle(sides));
  assert.equal(
    taken.map(({ externalTokens }) => externalTokens),
    [0, TOKENS.length],
  );
  clean(...sides);
  await Promise.all(sides.map(closeSide));
});

test('two prefills of one transfer id: the second is not handed over while the first is', async () => {
  const [prefill, decode] = [side(), side()];
  const params = { do_remote_decode: true, transfer_id: transferId() };
  const first = prefill.engine.add({ tokens: TOKENS, kvTransferParams: params });
  const second = prefill.engine.add({ tokens: tokensOf(4, 9), kvTransferParams: params });
  await drive([prefill], () => second.state === 'finished');
  assert.is(second.params, null);
  assert.is(counters(prefill).handoversRefused, 1);
  const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: first.params! });
  await drive([prefill, decode], idle([prefill, decode]));
  assert.is(decoded.externalTokens, TOKENS.length);
  // Later the id may come again.
  const third = prefill.engine.add({ tokens: tokensOf(5, 9), kvTransferParams: params });
  await drive([prefill], () => third.state === 'finished');
  const again = decode.engine.add({ tokens: tokensOf(5, 9), kvTransferParams: third.params! });
  await drive([prefill, decode], idle([prefill, decode]));
  assert.is(again.externalTokens, 9);
  clean(prefill, decode);
  await Promise.all([prefill, decode].map(closeSide));
});

test('engines that share a transfer hand over to each other, and an engine to itself', async () => {
  for (const open of [async () => new LocalTransfer(), () => TcpTransfer.listen()]) {
    const transfer = await open();
    for (const mode of ['pull', 'push'] as const) {
      const shared = { transfer: () => transfer, connector: { mode } };
      const [prefill, decode] = [side({ ...shared, tensorParallelSize: 2 }), side(shared)];
      for (const to of [decode, prefill]) {
        const { decoded } = await handOver(prefill, to, TOKENS);
        assert.equal([decoded.externalTokens, to.failures], [TOKENS.length, []]);
      }
      clean(prefill, decode);
      await Promise.all([prefill, decode].map(({ engine }) => engine.close()));
    }
    await transfer.close();
  }
});

test('a decode whose blocks are taken before it asks for any lets the prefill go', async () => {
  const transfer = new LocalTransfer();
  const engine = { engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 4 } } as const;
  const scheduler = new MooncakeConnector({ transfer }).createScheduler(engine);
  const kvTransferParams = decodeParams({ ...side(), transfers: [transfer] }, 't');
  scheduler.onNewRequest({ requestId: 'r', tokens: TOKENS, numPromptTokens: TOKENS.length, kvTransferParams });
  const none = { newRequests: [], cachedRequests: [], numScheduledTokens: {}, finishedRequestIds: [] };
  scheduler.buildConnectorMeta({ ...none, preemptedRequestIds: ['r'] });
  assert.is(scheduler.stats().handoversUnwanted, 1);
  await transfer.close();
});

test('options out of range and a rank that the engine does not have are refused by name', () => {
  const transfer = new LocalTransfer();
  const refused = (argument: string) => (error: unknown) =>
    error instanceof MooncakeError && error.argument === argument;
  for (const [options, argument] of [
    [{}, 'transfer'],
    [{ transfer: 'tcp://x:1' }, 'transfer'],
    [{ transfer, mode: 'both' }, 'mode'],
    [{ transfer, verify: 'some' }, 'verify'],
    [{ transfer, verify: { sampled: 0 } }, 'verify.sampled'],
    [{ transfer, abortTimeoutMs: 0 }, 'abortTimeoutMs'],
    [{ transfer, loadTimeoutMs: 2 ** 31 }, 'loadTimeoutMs'],
    [{ transfer, maxConcurrentMoves: 0 }, 'maxConcurrentMoves'],
  ] as const) {
    assert.throws(() => new MooncakeConnector(options as never), refused(argument));
  }
  const engine = { engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 4 } } as const;
  const connector = new MooncakeConnector({ transfer });
  assert.throws(() => connector.createWorker(engine, 1), refused('rank'));
});

test('incomplete parameters, or those of the other role, are no hand-over', async () => {
  const [prefill, decode] = [side({ role: 'producer' }), side({ role: 'consumer' })];
  const source = decodeParams(prefill, 'x');
  for (const key of ['transfer_id', 'remote_engine_id', 'remote_bootstrap_addr'] as const) {
    const decoded = await decode.engine.run({ tokens: TOKENS, kvTransferParams: { ...source, [key]: undefined } });
    assert.is(decoded.externalTokens, 0);
  }
  await prefill.engine.run({ tokens: TOKENS, kvTransferParams: source });
  await decode.engine.run({ tokens: TOKENS, kvTransferParams: { do_remote_decode: true, transfer_id: 'y' } });
  const nameless = await prefill.engine.run({ tokens: TOKENS, kvTransferParams: { do_remote_decode: true } });
  assert.is(nameless.params, null);
  assert.equal([counters(decode).handoversRefused, counters(prefill).handoversRefused], [4, 2]);
  clean(prefill, decode);
  await Promise.all([prefill, decode].map(closeSide));
});

test('what a decode has already is not moved again', async () => {
  const prefill = side();
  const decode = side({ localPrefixCache: true });
  const running = decode.engine.add({ tokens: TOKENS.slice(0, 13), maxTokens: 200 });
  await steps([decode], 5);
  const transfer = transferId();
  const prefilled = prefill.engine.add({
    tokens: TOKENS,
    kvTransferParams: { do_remote_decode: true, transfer_id: transfer },
  });
  await drive([prefill], () => prefilled.state === 'finished');
  const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
  await drive([prefill, decode], () => decoded.state === 'finished');
  decode.engine.abort(running);
  await drive([prefill, decode], idle([prefill, decode]));
  assert.equal([decoded.localTokens, decoded.externalTokens], [12, 10]);
  // Two layers of four heads, key and value of 8 bytes each.
  assert.is(counters(decode).bytesLoaded, 10 * 2 * 4 * 2 * 8);
  assert.is(counters(decode).bytesVerified, counters(decode).bytesLoaded);
  clean(prefill, decode);
  await Promise.all([prefill, decode].map(closeSide));
});

test('a hundred hand-overs at once, fetched in any order, leave nothing behind', async () => {
  for (const mode of ['pull', 'push'] as const) {
    const prefill = side({ blocks: 1000, tensorParallelSize: 2, maxTokensPerStep: 64 });
    const decode = side({ blocks: 1000, connector: { mode, maxConcurrentMoves: 3 } });
    const order = Array.from({ length: 100 }, (_, i) => (i * 37) % 100);
    const promptOf = (i: number) => tokensOf(i, 1 + ((i * 7) % 40));
    const ids = order.map(() => transferId());
    const decoded = order.map((i) =>
      decode.engine.add({ tokens: promptOf(i), maxTokens: 2, kvTransferParams: decodeParams(prefill, ids[i]) }),
    );
    for (let i = 0; i < 100; i++) {
      prefill.engine.add({
        tokens: promptOf(i),
        kvTransferParams: { do_remote_decode: true, transfer_id: ids[i] },
      });
    }
    await drive([prefill, decode], idle([prefill, decode]));
    assert.equal(decode.failures, []);
    for (const request of decoded) assert.is(request.externalTokens, request.numPromptTokens);
    clean(prefill, decode);
    const left = counters(prefill);
    assert.equal([left.handoversHeld, left.handoversDone, counters(decode).loadsRunning], [0, 200, 0]);
    await Promise.all([prefill, decode].map(closeSide));
  }
});

test.run();
