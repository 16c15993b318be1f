/** What MooncakeStoreConnector writes where: keys, bytes, namespaces, and what it does not do twice. */
import {
  blockHashes,
  type KvConnector,
  MooncakeError,
  MooncakeStore,
  MooncakeStoreConnector,
  type ObjectStore,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, type HarnessOptions, tokensOf } from './harness.js';
import { slowStore } from './slow-store.js';

const TOKENS = tokensOf(1, 18);

/** Engines over one store, closed with it. */
async function withStore(
  run: (
    store: MooncakeStore,
    engine: (connector: KvConnector, options?: Partial<HarnessOptions>) => HarnessEngine,
  ) => Promise<void>,
): Promise<void> {
  const store = new MooncakeStore({ segments: '4MB' });
  const engines: HarnessEngine[] = [];
  try {
    await run(store, (connector, options) => {
      const engine = new HarnessEngine({ ...options, connector });
      engines.push(engine);
      return engine;
    });
  } finally {
    for (const engine of engines) {
      assert.equal(engine.corruptions, []);
      await engine.close();
    }
    await store.close();
  }
}

const refusal = async (connector: MooncakeStoreConnector): Promise<MooncakeError> => {
  try {
    await connector.attached();
  } catch (error) {
    assert.instance(error, MooncakeError);
    assert.is((error as MooncakeError).code, 'ERR_NAMESPACE');
    return error as MooncakeError;
  }
  throw new Error('nobody was refused');
};

test("stock: keys are those of vLLM's own connector, values its pages layer after layer", async () => {
  await withStore(async (store, engine) => {
    const connector = new MooncakeStoreConnector({ store, integrity: 'stock', prefix: 'team' });
    const from = engine(connector, { model: '/models/Llama-3.1-8B/', tensorParallelSize: 2 });
    // Kept while it runs: its first blocks are compared with what the store has.
    const request = from.add({ tokens: TOKENS, maxTokens: 9 });
    await from.until(() => request.outputTokens.length === 5);
    const hashes = blockHashes(TOKENS, { blockSize: 4 });
    for (const rank of [0, 1]) {
      for (let block = 0; block < 4; block++) {
        const key = `team@Llama-3.1-8B@tp_rank:${rank}@pcp0@dcp0@pp_rank:0@group:0@${hashes.hex(block)}`;
        const value = await store.get(key);
        // Two layers of two heads, four tokens, keys and values of 8 bytes; 64 blocks.
        const page = 2 * 4 * 2 * 8;
        const [memory] = from.ranks[rank].memories;
        const id = request.blocks[block];
        const pages = [0, 1].map((layer) => memory.slice((layer * 64 + id) * page, (layer * 64 + id + 1) * page));
        assert.equal(value, Uint8Array.from([...pages[0], ...pages[1]]), key);
      }
    }
    await from.drain();
    await connector.attached();
  });
});

test('stock: a companion object says what the bytes mean, and who does not fit is refused by field', async () => {
  await withStore(async (store, engine) => {
    const stock = () => new MooncakeStoreConnector({ store, integrity: 'stock' });
    await engine(stock(), { model: 'a/llama' }).run({ tokens: TOKENS });
    const others: [Partial<HarnessOptions>, string, unknown, unknown][] = [
      [{ model: 'b/llama' }, 'model', 'a/llama', 'b/llama'],
      [{ model: 'a/llama', tensorParallelSize: 2 }, 'tensorParallelSize', 1, 2],
      [{ model: 'a/llama', hash: { algorithm: 'sha256' } }, 'hashAlgorithm', 'sha256_cbor', 'sha256'],
      [{ model: 'a/llama', blockSize: 8 }, 'hashBlockSize', 4, 8],
      [{ model: 'a/llama', heads: 8 }, 'groups[0].heads', 4, 8],
      [{ model: 'a/llama', form: 'split' }, 'groups[0].form', 'head,token,tensor:k+v', 'tensor:k+v,token,head'],
      [{ model: 'a/llama', cellBytes: 16 }, 'groups[0].objectBytes', 512, 1024],
    ];
    for (const [options, field, theirs, ours] of others) {
      const connector = stock();
      const other = engine(connector, options);
      const request = await other.run({ tokens: TOKENS, maxTokens: 2 });
      assert.is(request.externalTokens, 0);
      const error = await refusal(connector);
      assert.is(error.argument, field);
      assert.is(error.value, ours);
      for (const value of [theirs, ours]) assert.match(error.message, JSON.stringify(value));
      assert.ok(other.scheduler.stats().refusedLookups > 0);
      assert.is(other.workers[0].stats().savedBlocks, 0);
    }
    assert.ok((await store.stats()).misses.namespace > 0);
    const seeded = stock();
    engine(seeded, { model: 'a/llama', hash: { seed: '0' } });
    assert.is((await refusal(seeded)).argument, 'noneHash');
    // The one that fits is served.
    const fits = stock();
    assert.is((await engine(fits, { model: 'a/llama' }).run({ tokens: TOKENS })).externalTokens, 16);
    await fits.attached();
  });
});

test('beside objects that stock wrote, an engine must be told what to do', async () => {
  await withStore(async (store, engine) => {
    // What vLLM's own connector leaves: keys and values, and nothing that says what they mean.
    const { hash } = { hash: blockHashes(TOKENS, { blockSize: 4 }).hex(0) };
    const key = `llama@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@${hash}`;
    await store.put(key, new Uint8Array(512).fill(7));

    const unchosen = new MooncakeStoreConnector({ store });
    const refused = engine(unchosen, { model: 'llama' });
    assert.is((await refused.run({ tokens: TOKENS })).externalTokens, 0);
    const error = await refusal(unchosen);
    assert.is(error.argument, 'integrity');
    assert.match(error.message, "'stock'");
    assert.match(error.message, "'strict'");

    const strict = new MooncakeStoreConnector({ store, integrity: 'strict' });
    const apart = engine(strict, { model: 'llama' });
    assert.is((await apart.run({ tokens: TOKENS })).externalTokens, 0);
    assert.is((await apart.run({ tokens: TOKENS })).externalTokens, 16);
    await strict.attached();
    const { noneHash, root, integrity } = strict.describe(apart.info);
    assert.is(integrity, 'strict');
    assert.is(root, 'llama');
    assert.is(noneHash.length, 64);
  });
});

test('blocks are saved once: not those that were loaded, found, or saved before', async () => {
  await withStore(async (store, engine) => {
    const connector = new MooncakeStoreConnector({ store });
    const first = engine(connector);
    await first.run({ tokens: TOKENS });
    const [stats] = first.workers.map((worker) => worker.stats());
    assert.is(stats.savedBlocks, 4);
    assert.is(stats.savedBytes, 4 * 512);

    const second = engine(connector, { localPrefixCache: true });
    await second.run({ tokens: [...TOKENS, ...tokensOf(2, 7)], maxTokens: 12 });
    const after = second.workers[0].stats();
    assert.is(after.loadedBlocks, 4);
    assert.is(after.savedBlocks, 5);
    assert.is(after.presentBlocks, 0);
    assert.is(second.scheduler.stats().hitTokens, 16);
    assert.is(second.scheduler.stats().lookedUpTokens, 24);
    assert.is((await store.stats()).metadata.objects, 9);
  });
});

test('a block counts as present where every rank finds its part', async () => {
  await withStore(async (store, engine) => {
    const connector = new MooncakeStoreConnector({ store });
    for (const lost of ['0-2', '2-4']) {
      await engine(connector, { tensorParallelSize: 2 }).run({ tokens: TOKENS });
      assert.is(await store.removeByRegex(`@heads:${lost}/4@`, { force: true }), 4);
      const request = await engine(connector, { tensorParallelSize: 2 }).run({ tokens: TOKENS });
      assert.is(request.externalTokens + request.failedBlocks, 0, `the heads ${lost} are not there`);
    }
  });
});

test('a load that is aborted is given up, and its blocks come back', async () => {
  await withStore(async (store, engine) => {
    await engine(new MooncakeStoreConnector({ store })).run({ tokens: TOKENS });
    const connector = new MooncakeStoreConnector({ store: slowStore(store, () => 20) });
    const to = engine(connector);
    const request = to.add({ tokens: TOKENS });
    await to.until(() => request.state === 'remote');
    to.abort(request);
    await to.drain();
    assert.is(to.workers[0].stats().abortedLoads, 1);
    assert.is(to.freeBlocks, to.blocks);
  });
});

test('a load that ends before any worker heard of it is reported all the same', async () => {
  await withStore(async (store, engine) => {
    const connector = new MooncakeStoreConnector({ store });
    const { info, workers, scheduler } = engine(connector);
    await engine(connector).run({ tokens: TOKENS });
    const request = { requestId: 'gone', tokens: TOKENS, numPromptTokens: TOKENS.length };
    let offered: [number | null, boolean] = [null, false];
    while (offered[0] === null) {
      offered = scheduler.getNumNewMatchedTokens(request, 0);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.equal(offered, [16, true]);
    scheduler.updateStateAfterAlloc(request, [[1, 2, 3, 4, 5]], 16);
    assert.equal(scheduler.requestFinished(request, [[1, 2, 3, 4, 5]]), [false, null]);
    assert.ok(scheduler.hasPendingWork(), info.engineId);
    workers[0].bindConnectorMetadata(
      scheduler.buildConnectorMeta({
        newRequests: [],
        cachedRequests: [],
        numScheduledTokens: {},
        finishedRequestIds: ['gone'],
        preemptedRequestIds: [],
      }),
    );
    workers[0].startLoadKv();
    assert.equal(workers[0].getFinished(['gone']), { sending: [], receiving: ['gone'] });
    assert.not.ok(scheduler.hasPendingWork());
  });
});

test('a store that promises what it cannot give is not believed twice', async () => {
  await withStore(async (store, engine) => {
    await engine(new MooncakeStoreConnector({ store })).run({ tokens: TOKENS });
    const broken: ObjectStore = slowStore(store, () => 0);
    broken.openGet = async () => {
      throw new MooncakeError('ERR_PEER', 'never');
    };
    for (const loadAsync of [true, false]) {
      const to = engine(new MooncakeStoreConnector({ store: broken, loadAsync }));
      const request = await to.run({ tokens: TOKENS, maxTokens: 2 });
      assert.is(request.outputTokens.length, 2);
      assert.is(request.failedBlocks, 4);
      assert.is(to.scheduler.stats().failedLoads, 1);
    }
  });
});

test('a store that refuses every save or does not answer costs its engine nothing but the sharing', async () => {
  await withStore(async (store, engine) => {
    const failing: ObjectStore = slowStore(store, () => 0);
    failing.openPut = failing.batchIsExist = async () => {
      throw new MooncakeError('ERR_TIMEOUT', 'never');
    };
    const told: unknown[] = [];
    const alone = engine(new MooncakeStoreConnector({ store: failing, onError: (error) => told.push(error) }));
    const request = await alone.run({ tokens: TOKENS, maxTokens: 4 });
    assert.is(request.outputTokens.length, 4);
    assert.is(alone.scheduler.stats().failedLookups, 1);
    assert.is(alone.workers[0].stats().failedSaveBlocks, 5);
    assert.is(alone.freeBlocks, alone.blocks);
    assert.ok(told.length > 1 && told.every((error) => (error as MooncakeError).code === 'ERR_TIMEOUT'));
  });
});

test('stock: a store that cannot be asked at first is used when it can', async () => {
  await withStore(async (store, engine) => {
    const late: ObjectStore = slowStore(store, () => 0);
    const { openGet } = late;
    late.openGet = async () => {
      throw new MooncakeError('ERR_PEER', 'not yet');
    };
    const own = engine(new MooncakeStoreConnector({ store: late, integrity: 'stock' }));
    assert.is((await own.run({ tokens: TOKENS })).externalTokens, 0);
    assert.is(own.workers[0].stats().savedBlocks, 0);
    late.openGet = openGet;
    let tokens = 0;
    for (const end = Date.now() + 10_000; tokens === 0 && Date.now() < end; ) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      tokens = (await own.run({ tokens: TOKENS })).externalTokens;
    }
    assert.is(tokens, 16);
  });
});

test('options are checked, by name', () => {
  const store = new MooncakeStore({ segments: '4MB' });
  const wrong: [object, string][] = [
    [{}, 'store'],
    [{ store, integrity: 'none' }, 'integrity'],
    [{ store, loadAsync: 1 }, 'loadAsync'],
    [{ store, peerTensorParallelSizes: [0] }, 'peerTensorParallelSizes[0]'],
    [{ store, lookupTimeoutMs: -1 }, 'lookupTimeoutMs'],
    [{ store, prefix: 3 }, 'prefix'],
    [{ store, onError: 1 }, 'onError'],
  ];
  for (const [options, argument] of wrong) {
    assert.throws(
      () => new MooncakeStoreConnector(options as { store: ObjectStore }),
      (error: MooncakeError) => error.code === 'ERR_INVALID_ARGUMENT' && error.argument === argument,
    );
  }
  return store.close();
});

test.run();
