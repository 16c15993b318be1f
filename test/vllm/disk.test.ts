// vLLM's own MooncakeStoreConnector over a store of ours that has less memory than the prompts take, and a disk: what memory
// has given up comes back from there.
import { join } from 'node:path';
import { MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Cluster } from './support/cluster.js';
import type { Engine } from './support/engine.js';
import { BLOCK, randomPrompt } from './support/prompts.js';

const engineTest = withVllm(test);
const MiB = 2 ** 20;
const LENGTH = 2000;
const BLOCKS = Math.floor(LENGTH / BLOCK);
/** Blocks of 64 KiB: 15.5 MiB. */
const LONG = [1, 2, 3, 4].map((seed) => randomPrompt(LENGTH, 40 + seed));
const MEMORY = 4 * MiB;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

engineTest('four prompts over memory for one', async () => {
  const expected = await baseline(LONG);
  const cluster = await Cluster.start({ node: 'none', flags: ['--enable_offload=true'] });
  let lender: MooncakeStore | undefined;
  const engines: Engine[] = [];
  const start = async (name: string) => {
    const engine = await cluster.engine(name);
    engines.push(engine);
    return engine;
  };
  try {
    lender = await MooncakeStore.connect({
      master: cluster.address,
      metadata: 'p2p',
      segments: MEMORY,
      disk: { folder: join(cluster.folder, 'disk'), capacityBytes: 256 * MiB, heartbeatMs: 100 },
    });
    const a = await start('A');
    for (const [i, prompt] of LONG.entries()) {
      // A stock connector drops what finds no room; it saves again what it computes again.
      for (let tries = 0; (await cluster.keys()).length < (i + 1) * BLOCKS; tries++) {
        assert.ok(tries < 20, `${(await cluster.keys()).length} objects after ${tries} tries to save prompt ${i}`);
        await a.reset();
        sameTokens(await a.generate([prompt]), [expected[i]]);
        await wait(1500);
      }
    }
    await a.stop();
    const b = await start('B');
    const loaded = await b.generate(LONG);
    sameTokens(loaded, expected);
    for (const one of loaded) assert.is(one.cached, Math.floor((LENGTH - 1) / BLOCK) * BLOCK);
    assert.is(await b.externalTokens(), LONG.length * BLOCKS * BLOCK);
  } finally {
    for (const engine of engines) await engine.stop();
    await lender?.close();
    await cluster.end();
  }
});

test.run();
