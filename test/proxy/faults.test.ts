// Engines that die in every phase, clients that leave or read slowly: a right answer or a clear error, never a hang, and
// other requests go on.
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { XpydProxy } from 'mooncake-ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { complete, Engine, expected, startEngines } from './engines.js';

interface Context {
  engines: Record<string, Engine>;
  proxy: XpydProxy;
}
const test = suite<Context>('faults');
const listen = (engines: Record<string, Engine>, options: object = {}) => {
  const all = Object.values(engines);
  return XpydProxy.listen({
    port: 0,
    prefill: all.filter(({ role }) => role === 'prefill').map((one) => one.options),
    decode: all.filter(({ role }) => role === 'decode').map((one) => one.url),
    healthMs: 100,
    ...options,
  });
};
test.before.each(async (context) => {
  context.engines = await startEngines('p1', 'p2', 'd1', 'd2');
});
test.after.each(async ({ engines, proxy }) => {
  await proxy?.close();
  await Promise.all(Object.values(engines).map((one) => one.kill()));
});

const metrics = async (proxy: XpydProxy) => await (await fetch(`${proxy.url}/metrics`)).text();
const states = (proxy: XpydProxy) =>
  Object.fromEntries(
    (proxy.status() as { instances: { instance: string; state: string }[] }).instances.map((one) => [
      one.instance,
      one.state,
    ]),
  );
async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await new Promise((resolve) => setTimeout(resolve, 20));
}
/** Requests beside the one that is disturbed. */
const others = (proxy: XpydProxy) =>
  Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const got = await complete(proxy.url, {
        prompt: `other ${i}`,
        max_tokens: 6,
        stream: true,
        dummy: { delay: 15 },
      });
      return { i, got };
    }),
  );

for (const order of ['prefill-first', 'concurrent']) {
  for (const stream of [true, false]) {
    for (const [engine, when] of [
      ['p1', 'prefill'],
      ['d1', 'head'],
      ['d1', 'first'],
    ] as const) {
      if (when === 'first' && !stream) continue;
      test(`${engine} killed in its ${when} (${order}, stream ${stream}): tried again elsewhere`, async (context) => {
        const { engines } = context;
        const proxy = (context.proxy = await listen(engines, { order }));
        const die = { engine, when };
        const got = await complete(proxy.url, { prompt: 'mine', max_tokens: 6, stream, dummy: { delay: 15, die } });
        assert.is(got.status, 200);
        assert.is(got.text, expected('mine', 6));
        assert.is(got.events[0].kv, 'transfer');
        await until(() => states(proxy)[engines[engine].url] === 'down');
        for (const { i, got } of await others(proxy)) assert.is(got.text, expected(`other ${i}`, 6));
        assert.match(await metrics(proxy), /mooncake_proxy_retries_total\{phase="(prefill|decode)"\} [1-9]/);
      });
    }
  }
}

test('d1 killed in the middle of its stream: whole events, then an error that names it', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen(engines));
  const beside = others(proxy);
  const die = { engine: 'd1', when: 'middle' };
  const mine = () => complete(proxy.url, { prompt: 'mine', max_tokens: 8, stream: true, dummy: { delay: 10, die } });
  let got = await mine();
  for (let tries = 0; got.done && tries < 20; tries++) got = await mine();
  assert.is(got.status, 200);
  assert.is(got.events.length, 4);
  const { error } = got.events[3] as { error: { message: string; code: number; reason: string } };
  assert.ok(error.message.includes(engines.d1.url));
  assert.is(error.reason, 'ERR_PEER');
  // What ran on the other engine is whole.
  for (const { got, i } of await beside) if (got.done) assert.is(got.text, expected(`other ${i}`, 6));
  assert.match(await metrics(proxy), /mooncake_proxy_requests_total\{outcome="broken"\} [1-9]/);
});

test('a prefill engine killed while a decode waits for its KV', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen(engines, { order: 'concurrent' }));
  const dummy = { prefillDelay: 400 };
  const got = complete(proxy.url, { prompt: 'waiting', max_tokens: 3, stream: true, dummy });
  const at = async (one: Engine) => (await one.log()).log.some(({ prompt }) => prompt === '"waiting"');
  await until(() => at(engines.p1));
  await engines.p1.kill();
  const { text, events } = await got;
  assert.is(text, expected('waiting', 3));
  assert.is(events[0].kv, 'transfer');
  assert.ok(await at(engines.p2));
});

test('all prefill engines dead: the decode engine computes, or the request is refused', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen(engines));
  await Promise.all([engines.p1.kill(), engines.p2.kill()]);
  const got = await complete(proxy.url, { prompt: 'alone', max_tokens: 2 });
  assert.is(got.text, expected('alone', 2));
  assert.is(got.events[0].kv, 'computed');
  await proxy.close();
  const strict = (context.proxy = await listen(engines, { whenPrefillFails: 'refuse' }));
  const refused = await complete(strict.url, { prompt: 'alone', max_tokens: 2 });
  assert.is(refused.status, 503);
  assert.is(refused.headers.get('retry-after'), '1');
});

test('all decode engines dead: 503, and well again when one comes back', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen(engines));
  const { port } = engines.d1;
  await Promise.all([engines.d1.kill(), engines.d2.kill()]);
  const got = await complete(proxy.url, { prompt: 'nobody', max_tokens: 2 });
  assert.ok(got.status === 502 || got.status === 503);
  await until(async () => (await fetch(`${proxy.url}/health`)).status === 503);
  engines.d3 = await Engine.start('d3', 'decode', { port });
  await until(async () => (await fetch(`${proxy.url}/health`)).status === 200);
  assert.is((await complete(proxy.url, { prompt: 'again', max_tokens: 2 })).text, expected('again', 2));
});

test('a prefill engine that was started again is known by its new engine id', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen({ p1: engines.p1, d1: engines.d1 }));
  const { port } = engines.p1;
  await engines.p1.kill();
  await until(() => states(proxy)[engines.p1.url] === 'down');
  engines.p3 = await Engine.start('p3', 'prefill', { port });
  await until(() => states(proxy)[engines.p1.url] === 'ready');
  assert.is((await complete(proxy.url, { prompt: 'new id', max_tokens: 1 })).events[0].kv, 'transfer');
});

test('an engine that stops answering is dead to its requests', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen(engines, { healthTimeoutMs: 300 }));
  const both = ['s1', 's2'].map((prompt) =>
    complete(proxy.url, { prompt, max_tokens: 1, stream: true, dummy: { prefillDelay: 300 } }),
  );
  await until(async () => (await engines.p1.log()).log.length > 0);
  engines.p1.child.kill('SIGSTOP');
  for (const [i, got] of (await Promise.all(both)).entries()) assert.is(got.text, expected(`s${i + 1}`, 1));
  assert.is(states(proxy)[engines.p1.url], 'down');
  engines.p1.child.kill('SIGCONT');
  await until(() => states(proxy)[engines.p1.url] === 'ready');
});

test('an engine that answers 500 is not asked twice; the last one is heard', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen({ p1: engines.p1, d1: engines.d1, d2: engines.d2 }));
  const bad = (engine: string) => ({ prompt: 'bad', max_tokens: 2, dummy: { fail: { engine, status: 500 } } });
  for (let i = 0; i < 4; i++) assert.is((await complete(proxy.url, bad('d1'))).text, expected('bad', 2));
  const alone = await complete(proxy.url, bad('p1'));
  assert.is(alone.events[0].kv, 'computed');
  const refused = await complete(proxy.url, { prompt: 'x', dummy: { fail: { engine: 'p1', status: 400 } } });
  assert.is(refused.events[0].kv, 'computed');
  await proxy.close();
  const one = (context.proxy = await listen({ p1: engines.p1, d1: engines.d1 }));
  const got = await complete(one.url, bad('d1'));
  assert.is(got.status, 500);
  assert.equal(got.events[0], { error: { message: 'd1 fails' } });
});

test('deadlines: of the request, of its prefill, of a pause', async (context) => {
  const { engines } = context;
  const two = { p1: engines.p1, d1: engines.d1 };
  let proxy = (context.proxy = await listen(two, { requestMs: 200 }));
  const late = await complete(proxy.url, { prompt: 'late', dummy: { prefillDelay: 60_000 } });
  assert.is(late.status, 504);
  await proxy.close();
  proxy = context.proxy = await listen(two, { prefillMs: 100 });
  const alone = await complete(proxy.url, { prompt: 'slow', max_tokens: 1, dummy: { prefillDelay: 60_000 } });
  assert.is(alone.events[0].kv, 'computed');
  await proxy.close();
  proxy = context.proxy = await listen(two, { idleMs: 100 });
  const pause = { prompt: 'pause', max_tokens: 9, stream: true, dummy: { prefillDelay: 1, delay: 1000 } };
  const got = await complete(proxy.url, pause);
  assert.is(got.done, false);
  assert.match(JSON.stringify(got.events.at(-1)), /ERR_TIMEOUT/);
});

/** A completion whose answer is left unread. */
function open(url: string, body: object, agent?: Agent): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const request = httpRequest(`${url}/v1/completions`, { method: 'POST', headers, agent }, resolve);
    request.on('error', reject).end(JSON.stringify(body));
  });
}

test('a client that leaves: both engines are told, in each phase', async (context) => {
  const { engines } = context;
  for (const order of ['prefill-first', 'concurrent']) {
    const proxy = (context.proxy = await listen({ p1: engines.p1, d1: engines.d1 }, { order }));
    const prompt = `left in prefill ${order}`;
    const controller = new AbortController();
    const options = { signal: controller.signal };
    const left = complete(proxy.url, { prompt, stream: true, dummy: { prefillDelay: 300, delay: 100 } }, options).catch(
      () => 'left',
    );
    const entry = async (one: Engine, text: string) =>
      (await one.log()).log.find((each) => each.prompt === JSON.stringify(text));
    await until(async () => (await entry(engines.p1, prompt)) !== undefined);
    if (order === 'concurrent') await until(async () => (await entry(engines.d1, prompt)) !== undefined);
    controller.abort();
    assert.is(await left, 'left');
    // A prefill that a decode waits for is let end; the decode fetches what it was told of.
    if (order === 'concurrent') await until(async () => (await engines.p1.log()).kept === 0);
    else await until(async () => (await entry(engines.p1, prompt))?.aborted === true);
    if (order === 'concurrent') await until(async () => (await entry(engines.d1, prompt))?.aborted === true);
    if (order === 'concurrent') {
      assert.is((await entry(engines.p1, prompt))?.aborted, undefined);
      assert.is((await entry(engines.d1, prompt))?.kv, 'transfer');
    }
    const streaming = `left in stream ${order}`;
    const answer = await open(proxy.url, { prompt: streaming, max_tokens: 1000, stream: true, dummy: { delay: 5 } });
    answer.once('data', () => answer.destroy());
    answer.on('error', () => {});
    await until(async () => (await entry(engines.d1, streaming))?.aborted === true);
    await until(async () => /requests_total\{outcome="aborted"\} 2/.test(await metrics(proxy)));
    assert.match(await metrics(proxy), /mooncake_proxy_requests_in_flight 0/);
    await proxy.close();
  }
});

test('a client that does not read holds the engine back, not the memory of the proxy', async (context) => {
  const { engines } = context;
  const proxy = (context.proxy = await listen({ p1: engines.p1, d1: engines.d1 }));
  const size = 1024;
  const body = { prompt: 'slow client', max_tokens: 64 * 1024, stream: true, dummy: { padding: size } };
  const answer = await open(proxy.url, body);
  answer.pause();
  const written = async () => Number((await engines.d1.log()).log.at(-1)!.written);
  let last = -1;
  // What sockets hold is written soon; then nothing moves.
  await until(async () => {
    const now = await written();
    const isStill = now === last;
    last = now;
    if (!isStill) await new Promise((resolve) => setTimeout(resolve, 200));
    return isStill;
  });
  assert.ok(last < 32 * 2 ** 20, `the engine wrote ${last} of ${64 * 2 ** 20} bytes`);
  for (const { i, got } of await others(proxy)) assert.is(got.text, expected(`other ${i}`, 6));
  let bytes = 0;
  let tail = '';
  for await (const chunk of answer) {
    bytes += chunk.length;
    tail = (tail + chunk.toString('latin1')).slice(-32);
  }
  assert.ok(bytes > 64 * 2 ** 20);
  assert.ok(tail.endsWith('data: [DONE]\n\n'));
});

test('a client that reads nothing is let go with what it has not taken', async (context) => {
  const { d1 } = context.engines;
  const proxy = (context.proxy = await listen({ d1 }, { idleMs: 200, mode: 'store' }));
  // More than the sockets between the two hold.
  const answer = await open(proxy.url, { prompt: 'mute', max_tokens: 512, stream: true, dummy: { padding: 1 << 16 } });
  answer.pause();
  await until(async () => /requests_total\{[^}]*\} [1-9]/.test(await metrics(proxy)));
  // It has been given up; the connection, which still holds bytes for it, is given up as well.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const outcome = await new Promise((resolve) => {
    answer.once('end', () => resolve('ended')).once('error', () => resolve('broken off'));
    answer.resume();
  });
  assert.is(outcome, 'broken off');
});

test('bodies that are half sent count as bytes under way', async (context) => {
  const { d1 } = context.engines;
  const proxy = (context.proxy = await listen({ d1 }, { mode: 'store', maxBufferedBytes: 100_000 }));
  const headers = { 'content-type': 'application/json' };
  const statuses: number[] = [];
  const halves = Array.from({ length: 4 }, () => {
    const request = httpRequest(`${proxy.url}/v1/completions`, { method: 'POST', headers, agent: false });
    request.on('response', (answer) => statuses.push(answer.statusCode!)).on('error', () => {});
    request.write(`{"prompt": "${'x'.repeat(40_000)}`);
    return request;
  });
  await until(() => statuses.length >= 2);
  assert.equal(statuses, [503, 503]);
  for (const request of halves) request.destroy();
  // What they held is free again.
  await until(async () => (await complete(proxy.url, { prompt: 'x'.repeat(90_000), max_tokens: 1 })).status === 200);
});

test('a proxy that closes lets requests end and takes no more, on connections that it has either', async (context) => {
  const { d1 } = context.engines;
  const proxy = (context.proxy = await listen({ d1 }, { mode: 'store' }));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const statuses: number[] = [];
  const request = async (prompt: string, delay: number) => {
    const answer = await open(proxy.url, { prompt, max_tokens: 4, dummy: { delay } }, agent);
    statuses.push(answer.statusCode!);
    for await (const _ of answer);
  };
  const long = complete(proxy.url, { prompt: 'long', max_tokens: 8, stream: true, dummy: { delay: 150 } });
  const first = request('first', 300);
  await until(async () => (await d1.log()).running === 2);
  // Waits for the connection of the one before it.
  const second = request('second', 0).catch(() => statuses.push(0));
  const closed = proxy.close(60_000);
  await Promise.all([first, second, closed]);
  agent.destroy();
  assert.is(statuses[0], 200);
  assert.is(statuses[1], 503);
  assert.is((await long).text, expected('long', 8));
});

test.run();
