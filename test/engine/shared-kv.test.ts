// Engines that share KV through the package's own connectors: every answer is that of a run without any cache.
import { LocalTransfer, MooncakeConnector, MooncakeStore, MooncakeStoreConnector, MultiConnector } from 'mooncake-ts';
import { type EngineOptions, encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { expected, model, text } from './support/small.js';

const prompts = Array.from({ length: 4 }, (_, i) => [...encode(text(`prompt ${i}`, 79 + 20 * i))]);
const ask = { maxTokens: 12, ignoreEos: true };
const MEMORY = 8 << 20;

async function within(engines: readonly ReferenceEngine[], use: () => Promise<void>): Promise<void> {
  try {
    await use();
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

/** All blocks are free or findable again: nothing is kept for a connector. */
async function settled(engine: ReferenceEngine): Promise<void> {
  while (engine.stats().requests.delayed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  assert.is(engine.stats().blocks.free, engine.stats().blocks.total);
}

test('through a store, whole or by layer, between engines of different ranks', async () => {
  for (const [from, to] of [
    [1, 1],
    [2, 2],
    [1, 2],
    [2, 1],
  ]) {
    for (const loadAsync of [true, false]) {
      const store = new MooncakeStore({ segments: MEMORY });
      const start = (tensorParallelSize: number) => {
        const connector = new MooncakeStoreConnector({ store, loadAsync, peerTensorParallelSizes: [1, 2] });
        return new ReferenceEngine({ model, connector, tensorParallelSize });
      };
      const [first, second] = [start(from), start(to)];
      await within([first, second], async () => {
        await Promise.all(prompts.map((prompt) => first.generate(prompt, ask).result));
        await settled(first);
        const results = await Promise.all(prompts.map((prompt) => second.generate(prompt, ask).result));
        for (const [i, { tokens, cached }] of results.entries()) {
          const what = `${from} to ${to} ranks, ${loadAsync ? 'whole' : 'by layer'}, prompt ${i}`;
          assert.equal(tokens, expected(prompts[i], 12), what);
          assert.is(cached.external, 16 * Math.floor((prompts[i].length - 1) / 16), what);
        }
        await settled(second);
      });
      await store.close();
    }
  }
});

test('a store whose bytes have changed costs time, not truth; unchecked, it changes the answer', async () => {
  for (const [verify, loadAsync] of [
    [true, true],
    [true, false],
    [false, true],
  ]) {
    const memory = new Uint8Array(MEMORY);
    const store = new MooncakeStore({ segments: [{ name: 'objects', memory }], verify });
    const start = () => new ReferenceEngine({ model, connector: new MooncakeStoreConnector({ store, loadAsync }) });
    const [first, second] = [start(), start()];
    await within([first, second], async () => {
      const prompt = prompts[3];
      await first.generate(prompt.slice(0, 81), ask).result;
      await settled(first);
      for (let at = 3; at < MEMORY; at += 64) memory[at] ^= 0x40;
      const { tokens, cached } = await second.generate(prompt, ask).result;
      await settled(second);
      if (!verify) {
        assert.is(cached.external, 80);
        assert.not.equal(tokens, expected(prompt, 12));
        return;
      }
      assert.equal([tokens, cached.external], [expected(prompt, 12), 0]);
      assert.ok(second.stats().failedBlocks > 0);
      // What the second engine computed and saved, in whichever step, is right too.
      second.resetPrefixCache();
      assert.equal((await second.generate(prompt, ask).result).tokens, expected(prompt, 12));
      first.resetPrefixCache();
      assert.equal((await first.generate(prompt, ask).result).tokens, expected(prompt, 12));
    });
    await store.close();
  }
});

/** A prefill and a decode engine, handing over, with a store behind both. */
async function withPair(
  { mode, prefill, decode }: { mode: 'pull' | 'push'; prefill: EngineOptions; decode: EngineOptions },
  use: (prefill: ReferenceEngine, decode: ReferenceEngine) => Promise<void>,
): Promise<void> {
  const store = new MooncakeStore({ segments: MEMORY });
  const transfers = [new LocalTransfer(), new LocalTransfer()];
  const start = (transfer: LocalTransfer, options: EngineOptions) => {
    const handOver = new MooncakeConnector({ transfer, mode });
    const connector = new MultiConnector([handOver, new MooncakeStoreConnector({ store })]);
    return new ReferenceEngine({ model, connector, ...options });
  };
  const engines = [start(transfers[0], prefill), start(transfers[1], decode)];
  await within(engines, () => use(engines[0], engines[1]));
  await Promise.all(transfers.map((transfer) => transfer.close()));
  await store.close();
}

const handOver = (prompt: readonly number[], engine: ReferenceEngine, id: string) =>
  engine.generate(prompt, { maxTokens: 1, kvTransferParams: { do_remote_decode: true, transfer_id: id } }).result;

test('from prefill to decode, read or written, between engines of different ranks', async () => {
  for (const mode of ['pull', 'push'] as const) {
    for (const [from, to] of [
      [1, 1],
      [2, 1],
      [1, 2],
    ]) {
      const ranks = { prefill: { tensorParallelSize: from }, decode: { tensorParallelSize: to } };
      await withPair({ mode, ...ranks }, async (prefill, decode) => {
        const results = await Promise.all(
          prompts.map(async (prompt, i) => {
            const { kvTransferParams } = await handOver(prompt, prefill, `transfer ${i}`);
            assert.ok(kvTransferParams?.do_remote_prefill);
            return decode.generate(prompt, { ...ask, kvTransferParams }).result;
          }),
        );
        for (const [i, { tokens, cached }] of results.entries()) {
          assert.equal(tokens, expected(prompts[i], 12), `${mode}, ${from} to ${to} ranks, prompt ${i}`);
          assert.ok(cached.external >= prompts[i].length - 16, `${cached.external} tokens of prompt ${i}`);
        }
        await Promise.all([settled(prefill), settled(decode)]);
      });
    }
  }
});

test('a prefill engine that is gone is done without', async () => {
  await withPair({ mode: 'pull', prefill: {}, decode: {} }, async (prefill, decode) => {
    const [prompt] = prompts;
    const { kvTransferParams } = await handOver(prompt, prefill, 'orphan');
    await prefill.close();
    const { tokens } = await decode.generate(prompt, { ...ask, kvTransferParams: kvTransferParams ?? {} }).result;
    assert.equal(tokens, expected(prompt, 12));
    await settled(decode);
  });
});

test.run();
