// Engines that hand KV over layer by layer, while the prefill computes: every answer is that of a run without any cache.
import { LocalTransfer, MooncakeConnector, type Transfer, type WorkerConnector } from 'mooncake-ts';
import { encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { GatedTransfer } from '../connector/pd-gate.js';
import { expected, model, text } from './support/small.js';

const LAYERS = model.config.layers;
const prompt = [...encode(text('layers', 119))];
const ask = { maxTokens: 12, ignoreEos: true };

async function until(done: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !done(); ) {
    assert.ok(Date.now() < end, 'the engines hang');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

interface PairOptions {
  ranks?: readonly [number, number];
  transfer?: Transfer;
  verify?: 'full' | 'off';
  /** Before the prefill computes its n-th layer, over all steps. */
  before?: (layers: number, prefill: ReferenceEngine) => Promise<void>;
}

/** Two engines; the prefill computes 16 tokens in a step. */
function pair({ ranks = [1, 1], transfer = new LocalTransfer(), verify = 'full', before }: PairOptions = {}) {
  const source = new MooncakeConnector({ transfer });
  let layers = 0;
  const paced = {
    name: source.name,
    createScheduler: source.createScheduler.bind(source),
    createWorker: (...args: Parameters<MooncakeConnector['createWorker']>): WorkerConnector => {
      const worker = source.createWorker(...args);
      const waitForLayerLoad = worker.waitForLayerLoad.bind(worker);
      worker.waitForLayerLoad = async (layer) => {
        await waitForLayerLoad(layer);
        await before?.(layers++, prefill);
      };
      return worker;
    },
  };
  const prefill = new ReferenceEngine({
    model,
    connector: paced,
    tensorParallelSize: ranks[0],
    maxBatchedTokens: 16,
  });
  const target = new LocalTransfer();
  const decode = new ReferenceEngine({
    model,
    connector: new MooncakeConnector({ transfer: target, mode: 'layers', verify }),
    tensorParallelSize: ranks[1],
  });
  const close = async () => {
    await Promise.all([prefill.close(), decode.close()]);
    await Promise.all([transfer.close(), target.close()]);
  };
  return { prefill, decode, address: transfer.address, close };
}

let transfers = 0;

/** Both at once, as a router that does not wait for the prefill. */
async function generate({ prefill, decode, address }: ReturnType<typeof pair>) {
  const transfer_id = `layers-${++transfers}`;
  const decoded = decode.generate(prompt, {
    ...ask,
    kvTransferParams: {
      do_remote_prefill: true,
      transfer_id,
      remote_engine_id: prefill.info.engineId,
      remote_bootstrap_addr: address,
    },
  }).result;
  await until(() => prefill.stats().connector.decodesWaiting > 0);
  await prefill.generate(prompt, { maxTokens: 1, kvTransferParams: { do_remote_decode: true, transfer_id } }).result;
  return decoded;
}

for (const ranks of [
  [1, 1],
  [2, 1],
  [1, 2],
] as const) {
  test(`${ranks.join(' ranks to ')}: the layers of a step are there before the next step, and the answer is right`, async () => {
    const moved: number[] = [];
    const engines = pair({
      ranks,
      async before(layers, prefill) {
        // The first layer of each step but the first, on rank 0.
        if (ranks[0] > 1 || layers === 0 || layers % LAYERS !== 0 || layers / LAYERS > 7) return;
        const least = (layers / LAYERS) * LAYERS * ranks[1];
        await until(() => prefill.stats().connector.layersPushedEarly >= least);
        moved.push(least);
      },
    });
    const { tokens, cached } = await generate(engines);
    assert.equal([tokens, cached.external], [expected(prompt, 12), prompt.length - 1]);
    if (ranks[0] === 1) assert.is(moved.length, Math.floor(prompt.length / 16));
    const { bytesLoaded, bytesLoadedEarly, bytesVerified } = engines.decode.stats().connector;
    assert.is(bytesVerified, bytesLoaded);
    assert.ok(bytesLoadedEarly > 0 && bytesLoadedEarly <= bytesLoaded);
    await engines.close();
  });
}

/** Bytes of a prompt's KV: keys and values of 2 heads of 8 floats. */
const ALL = prompt.length * LAYERS * 2 * 2 * 8 * 4;

for (const corrupt of [false, true]) {
  test(
    corrupt ? 'a last layer that comes late and wrong changes the answer: the control' : 'the same, unharmed',
    async () => {
      const gate = new GatedTransfer(new LocalTransfer());
      const engines = pair({ transfer: gate, verify: 'off' });
      let moved = 0;
      gate.onMoved = (_, { bytes }) => {
        moved += bytes;
        if (moved < ALL || !corrupt) return;
        const [cache] = engines.decode.caches;
        for (let at = cache.at(LAYERS - 1, 0, 0); at < cache.values.length; at++) cache.values[at] *= -3;
      };
      const { tokens } = await generate(engines);
      assert.is(moved, ALL);
      assert.is(tokens.join() === expected(prompt, 12).join(), !corrupt);
      await engines.close();
    },
  );
}

test.run();
