import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { blockHashes, PrefixIndex } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';
import { bundle } from './support/bundle.js';
import { find, lane } from './support/runtimes.js';
import { type Served, start } from './support/workerd.js';

const hash = { algorithm: 'sha256_cbor', blockSize: 16, seed: '0' } as const;
const prompt = (stem: number) => Array.from({ length: 320 }, (_, i) => stem * 1000 + i);

function snapshot(): Uint8Array {
  const index = new PrefixIndex({ keyWidth: 32 });
  for (const stem of [2, 1]) index.insert(index.addInstance(`gpu-${stem}`), blockHashes(prompt(stem), hash));
  return index.snapshot();
}

async function listen(handler: RequestListener): Promise<{ server: Server; url: string }> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** An engine that says who it is, in two pieces; or nothing, where the prompt asks for it. */
const engine = (id: number) =>
  listen((request, response) => {
    let body = '';
    request.on('data', (piece) => (body += piece));
    request.on('end', () => {
      const { prompt, silent } = JSON.parse(body);
      response.writeHead(silent ? 204 : 200, { 'content-type': 'text/plain' });
      if (!silent) response.write(`engine ${id}, `);
      response.end(silent ? '' : `${prompt.length} tokens`);
    });
  });

async function worker(binary: string, env: Record<string, string>): Promise<Served> {
  const folder = join(lane, 'examples', 'edge-worker');
  rmSync(join(folder, 'build'), { recursive: true, force: true });
  mkdirSync(join(folder, 'build'));
  for (const { name, contents } of await bundle({ entry: 'examples/edge-worker/src/worker.js' }, 'workerd')) {
    writeFileSync(join(folder, 'build', name), contents);
  }
  return start(binary, join(folder, 'src', 'workerd.capnp'), {
    HASH: JSON.stringify(hash),
    SNAPSHOT_TTL: '60',
    ...env,
  });
}

const workerd = find('workerd');
if (workerd) {
  test('the example worker routes a prompt to the engine that holds it, and around one that is down', async () => {
    const bytes = snapshot();
    const source = await listen((_, response) => response.end(bytes));
    const engines = await Promise.all([0, 1, 2].map(engine));
    const router = await worker(workerd, {
      SNAPSHOT_URL: source.url,
      INSTANCES: JSON.stringify(Object.fromEntries(engines.map(({ url }, id) => [`gpu-${id}`, url]))),
    });
    try {
      const post = (path: string, body: unknown) =>
        fetch(router.url + path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) });
      const route = async (tokens: unknown) => (await post('/route', { prompt: tokens })).json();

      assert.equal(await route(prompt(2)), {
        instance: 'gpu-2',
        url: engines[2].url,
        state: 'exact',
        overlap: 20,
        blocks: 20,
      });
      assert.is((await route(prompt(3))).state, 'fallback');

      const answer = await post('/v1/completions', { prompt: prompt(1), max_tokens: 1 });
      assert.is(answer.headers.get('x-mooncake-route'), 'gpu-1; state=exact; overlap=20/20');
      assert.is(await answer.text(), 'engine 1, 320 tokens');

      for (const [body, argument] of [
        [{ prompt: 'text' }, 'tokens'],
        [{ prompt: [...prompt(1).slice(1), -1] }, 'tokens[319]'],
        ['{', undefined],
        ['null', 'tokens'],
      ] as const) {
        const refused = await post('/v1/completions', body);
        assert.is(refused.status, 400);
        assert.is((await refused.json()).error.argument, argument);
      }

      const silent = await post('/v1/completions', { prompt: prompt(1), silent: true });
      assert.equal([silent.status, await silent.text()], [204, '']);
      assert.is(silent.headers.get('x-mooncake-route'), 'gpu-1; state=exact; overlap=20/20');
      const idle = await (await fetch(`${router.url}/status`)).json();
      assert.equal(
        idle.engines.map(({ ahead, up }: { ahead: number; up: boolean }) => [ahead, up]),
        [
          [0, true],
          [0, true],
          [0, true],
        ],
      );

      engines[1].server.closeAllConnections();
      engines[1].server.close();
      const rerouted = await post('/v1/completions', { prompt: prompt(1) });
      assert.match(rerouted.headers.get('x-mooncake-route') ?? '', /^gpu-[02]; state=fallback; overlap=0\/20$/);
      assert.match(await rerouted.text(), /^engine [02], 320 tokens$/);

      const status = await (await fetch(`${router.url}/status`)).json();
      assert.is(status.loaded, true);
      assert.equal(
        status.engines.map(({ up }: { up: boolean }) => up),
        [true, false, true],
      );
    } finally {
      await router.close();
      for (const { server } of [source, ...engines]) {
        server.closeAllConnections();
        server.close();
      }
    }
  });

  test('the example worker does not wait for ever for a snapshot', async () => {
    const source = await listen(() => {});
    const router = await worker(workerd, { SNAPSHOT_URL: source.url, INSTANCES: '{"gpu-0":"http://127.0.0.1:1"}' });
    try {
      const body = JSON.stringify({ prompt: prompt(1) });
      const route = await fetch(`${router.url}/route`, { method: 'POST', body, signal: AbortSignal.timeout(60_000) });
      assert.is((await route.json()).state, 'fallback');
    } finally {
      await router.close();
      source.server.closeAllConnections();
      source.server.close();
    }
  });

  test('without a snapshot the example worker still answers and says so; without engines it says 503', async () => {
    const engines = await Promise.all([0, 1].map(engine));
    const router = await worker(workerd, {
      SNAPSHOT_URL: `${engines[0].url}/none`.replace(/:\d+/, ':1'),
      INSTANCES: JSON.stringify(Object.fromEntries(engines.map(({ url }, id) => [`gpu-${id}`, url]))),
    });
    try {
      const body = JSON.stringify({ prompt: prompt(1) });
      const first = await (await fetch(`${router.url}/route`, { method: 'POST', body })).json();
      const second = await (await fetch(`${router.url}/route`, { method: 'POST', body })).json();
      assert.equal([first.instance, first.state, second.instance], ['gpu-0', 'fallback', 'gpu-1']);
      const status = await (await fetch(`${router.url}/status`)).json();
      assert.is(status.loaded, false);
      assert.type(status.problem, 'string');

      for (const { server } of engines) {
        server.closeAllConnections();
        server.close();
      }
      const refused = await fetch(`${router.url}/v1/completions`, { method: 'POST', body });
      assert.is(refused.status, 503);
      assert.is((await refused.json()).error.code, 'ERR_NO_INSTANCE');
    } finally {
      await router.close();
      for (const { server } of engines) {
        server.closeAllConnections();
        server.close();
      }
    }
  });
} else {
  skip(
    test,
    'the example worker',
    'npm has no workerd for this platform',
    'npm run test:edge on Linux, macOS or Windows',
  );
}

test.run();
