/**
 * What docs/edge.md says of an isolate of 128 MB is loaded in one. workerd itself enforces no limit per isolate, so it is
 * measured twice: WebAssembly gets no more than what the limit leaves beside the snapshot and the worker's own heap, and
 * the process may not grow by more than the limit.
 */
import { existsSync, readFileSync } from 'node:fs';
import { PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { bundle } from './support/bundle.js';
import { find } from './support/runtimes.js';
import { serve } from './support/workerd.js';

const LIMIT = 128_000_000;
/** Left to the script, its heap and requests under way. */
const RESERVE = 12_000_000;
const PAGE = 65_536;
const CHAIN = 100;
const INSTANCES = 64;
const CAPACITY = [
  { keyWidth: 8, blocks: 2_400_000 },
  { keyWidth: 32, blocks: 900_000 },
] as const;

const WORKER = `import { MooncakeError, PrefixIndex } from 'mooncake-ts/edge';
let index;
async function answer(request) {
  const bytes = new Uint8Array(await request.arrayBuffer());
  if (request.method === 'PUT') {
    index = PrefixIndex.load(bytes);
    return index.stats();
  }
  return index ? index.match(bytes).entries() : [];
}
export default {
  fetch: (request) => answer(request).then(
    (value) => Response.json(value),
    (error) => Response.json(error instanceof MooncakeError ? error.code : String(error), { status: 400 }),
  ),
};`;

/** The hashes of chain `number`: unlike all others, the same each time. */
function chain(number: number, keyWidth: number): Uint8Array {
  const perBlock = keyWidth / 4;
  const words = new Uint32Array(CHAIN * perBlock);
  for (let i = 0; i < words.length; i++) {
    // MurmurHash3's fmix32: unlike inputs, unlike outputs.
    let word = number * words.length + i;
    word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
    word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
    words[i] = word ^ (word >>> 16);
  }
  return new Uint8Array(words.buffer);
}

/** A snapshot of `blocks` blocks in chains of 100, each on two of 64 instances. */
function snapshot(keyWidth: 8 | 32, blocks: number): Uint8Array {
  const index = new PrefixIndex({ keyWidth });
  for (let id = 0; id < INSTANCES; id++) index.addInstance(`gpu-${id}`);
  for (let number = 0; number < blocks / CHAIN; number++) {
    const hashes = chain(number, keyWidth);
    index.insert(number % INSTANCES, hashes);
    index.insert((number + 1) % INSTANCES, hashes);
  }
  assert.is(index.stats().blocks, blocks);
  return index.snapshot();
}

/** Bytes of memory that a process has, and that it had at most; undefined where the system does not tell so. */
function memory(pid: number): { now: number; most: number } | undefined {
  const file = `/proc/${pid}/status`;
  if (!existsSync(file)) return undefined;
  const field = (name: string) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(file, 'utf8'))?.[1]);
  return { now: field('VmRSS'), most: field('VmHWM') };
}

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);

const workerd = find('workerd');
if (workerd) {
  for (const { keyWidth, blocks } of CAPACITY) {
    test(`an isolate of 128 MB loads ${blocks} blocks with keys of ${keyWidth} bytes`, async () => {
      const bytes = snapshot(keyWidth, blocks);
      const pages = Math.floor((LIMIT - RESERVE - bytes.length) / PAGE);
      const served = await serve(workerd, await bundle({ source: WORKER }, 'workerd'), {
        v8Flags: [`--wasm-max-mem-pages=${pages}`],
      });
      const ask = (method: string, body: Uint8Array) => fetch(served.url, { method, body: body as BodyInit });
      try {
        await ask('POST', new Uint8Array(0));
        const before = memory(served.pid);
        const loaded = await ask('PUT', bytes);
        const stats = await loaded.json();
        assert.is(loaded.status, 200, JSON.stringify(stats));
        assert.is(stats.blocks, blocks);
        const after = memory(served.pid);
        const growth = before && after ? after.most - before.now : undefined;
        console.log(
          `\nNOTE 128 MB isolate, keys of ${keyWidth} bytes: ${blocks} blocks, snapshot ${megabytes(bytes.length)} MB, ` +
            `index ${megabytes(stats.bytes)} MB, the process grew by ${growth ? megabytes(growth) : '?'} MB`,
        );
        assert.ok((growth ?? 0) <= LIMIT, `the process grew by ${growth} bytes`);
        for (const number of [0, blocks / CHAIN / 2, blocks / CHAIN - 1]) {
          const held = await (await ask('POST', chain(number, keyWidth))).json();
          const holders = held.map(({ instance, any }: { instance: number; any: number }) => [instance, any]);
          const expected = [number % INSTANCES, (number + 1) % INSTANCES].sort((a, b) => a - b);
          assert.equal(
            holders,
            expected.map((instance) => [instance, CHAIN]),
          );
        }
      } finally {
        await served.close();
      }
    });
  }

  test('a snapshot that does not fit is refused and the isolate goes on', async () => {
    const served = await serve(workerd, await bundle({ source: WORKER }, 'workerd'), {
      v8Flags: ['--wasm-max-mem-pages=64'],
    });
    const load = async (blocks: number) => {
      return (await fetch(served.url, { method: 'PUT', body: snapshot(32, blocks) as BodyInit })).json();
    };
    try {
      assert.is((await load(10_000)).blocks, 10_000);
      assert.is(await load(200_000), 'ERR_OUT_OF_MEMORY');
      assert.is((await load(20_000)).blocks, 20_000);
    } finally {
      await served.close();
    }
  });
} else {
  skip(
    test,
    'the capacity of an isolate',
    'npm has no workerd for this platform',
    'npm run test:edge on Linux or macOS',
  );
}

test.run();
