// Completions through the proxy: each mode, each order, streams and whole answers, and what the engines are sent.
import { XpydProxy } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { complete, type Engine, expected, startEngines } from './engines.js';

let engines: Record<string, Engine>;
let p: Engine[];
let d: Engine[];

test.before(async () => {
  engines = await startEngines('p1', 'p2', 'd1', 'd2');
  p = [engines.p1, engines.p2];
  d = [engines.d1, engines.d2];
});
test.after(async () => {
  await Promise.all(Object.values(engines).map((one) => one.kill()));
});

const listen = (options: object = {}) =>
  XpydProxy.listen({
    port: 0,
    prefill: p.map((one) => one.options),
    decode: d.map((one) => one.url),
    log: () => {},
    ...options,
  });

for (const order of ['prefill-first', 'concurrent'] as const) {
  test(`KV goes from engine to engine, ${order}`, async () => {
    const proxy = await listen({ order });
    for (let i = 0; i < 4; i++) {
      const prompt = `${order} ${i}`;
      const dummy = { prefillDelay: 20 };
      const got = await complete(proxy.url, { prompt, max_tokens: 5, stream: i % 2 === 0, dummy });
      assert.is(got.status, 200);
      assert.is(got.text, expected(prompt, 5));
      assert.is(got.events[0].kv, 'transfer');
      assert.is(got.done, i % 2 === 0);
    }
    // Nothing is left at the prefill engines.
    for (const one of p) assert.is((await one.log()).kept, 0);
    // Each had its turns.
    for (const one of [...p, ...d]) {
      const { log } = await one.log();
      assert.is(log.filter(({ prompt }) => String(prompt).startsWith(`"${order}`)).length, 2);
    }
    await proxy.close();
  });
}

test('through the store: a prefill of one token, then the decode, no transfer parameters', async () => {
  const proxy = await listen({ mode: 'store' });
  const got = await complete(proxy.url, { prompt: 'by store', max_tokens: 3 });
  assert.is(got.text, expected('by store', 3));
  const bodies = (await Promise.all([...p, ...d].map((one) => one.log())))
    .flatMap(({ log }) => log)
    .filter(({ prompt }) => prompt === '"by store"')
    .map(({ body }) => JSON.parse(body as string));
  assert.is(bodies.length, 2);
  assert.equal(bodies[0], { prompt: 'by store', max_tokens: 1, stream: false, ignore_eos: true });
  assert.equal(bodies[1], { prompt: 'by store', max_tokens: 3 });
  await proxy.close();
});

test('auto: a prefill engine without a bootstrap server works through the store', async () => {
  const proxy = await listen({ prefill: [{ url: p[0].url, bootstrapPort: 'none' }] });
  const got = await complete(proxy.url, { prompt: 'auto', max_tokens: 3 });
  assert.is(got.events[0].kv, 'computed');
  assert.is((await p[0].log()).log.filter(({ prompt }) => prompt === '"auto"').length, 1);
  await proxy.close();
});

test('the bytes of the client reach the engines as they are, except what the proxy owns', async () => {
  const proxy = await listen({ prefill: [p[0].options] });
  const text =
    '{ "seed" : 12345678901234567890,"kv_transfer_params":{"remote_bootstrap_addr":"http://evil"}, "prompt":"a\\"},{[é\\u0041",' +
    '"stop":["x"],"max_tokens":7 ,"min_tokens":3,"logit_bias":{"1":1e2},"max_tokens":2, "stream":true, "stream_options":{"include_usage":true}\n}';
  const got = await complete(proxy.url, text);
  assert.is(got.text, expected('a"},{[éA', 2));
  const sent = async (one: Engine) => (await one.log()).log.at(-1)!;
  const prefill = (await sent(p[0])).body as string;
  assert.ok(
    prefill.startsWith(
      '{"seed" : 12345678901234567890,"prompt":"a\\"},{[é\\u0041","logit_bias":{"1":1e2},"max_tokens":1,',
    ),
  );
  const { kv_transfer_params: kept, ...asked } = JSON.parse(prefill);
  assert.is(asked.stream, false);
  assert.not('stop' in asked || 'min_tokens' in asked || 'stream_options' in asked);
  assert.equal(Object.keys(kept), ['do_remote_decode', 'do_remote_prefill', 'transfer_id']);
  const logs = await Promise.all(d.map((one) => one.log()));
  const decode = logs.flatMap(({ log }) => log).find(({ prompt }) => prompt === '"a\\"},{[éA"')!.body as string;
  assert.ok(decode.includes('"max_tokens":7 ,"min_tokens":3') && decode.includes('"stop":["x"]'));
  assert.not.ok(decode.includes('evil'));
  const { kv_transfer_params: fetched } = JSON.parse(decode);
  assert.is(fetched.transfer_id, kept.transfer_id);
  assert.is(fetched.remote_bootstrap_addr, p[0].url);
  await proxy.close();
});

test('what one transfer cannot serve is computed by the decode engine, or goes through the store', async () => {
  const proxy = await listen();
  const wishes = [
    { prompt: ['a', 'b'] },
    { prompt: [[1], [2]] },
    { prompt: 'n', n: 2 },
    { prompt: 'l', prompt_logprobs: 1 },
  ];
  for (const wish of wishes) {
    const got = await complete(proxy.url, { ...wish, max_tokens: 2 });
    assert.is(got.events[0].kv, 'computed');
    const prefilled = (await Promise.all(p.map((one) => one.log()))).flatMap(({ log }) => log);
    assert.not(prefilled.some(({ prompt }) => prompt === JSON.stringify(wish.prompt)));
  }
  const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
  assert.match(metrics, /mooncake_proxy_handovers_total\{kind="several_prompts"\} 2/);
  assert.match(metrics, /mooncake_proxy_handovers_total\{kind="several_choices"\} 1/);
  assert.match(metrics, /mooncake_proxy_handovers_total\{kind="prompt_logprobs"\} 1/);
  await proxy.close();
  const multi = await listen({ mode: 'multi' });
  await complete(multi.url, { prompt: ['multi'], n: 2, max_tokens: 2 });
  const prefilled = (await Promise.all(p.map((one) => one.log()))).flatMap(({ log }) => log);
  assert.is(prefilled.filter(({ prompt }) => prompt === '["multi"]').length, 1);
  await multi.close();
});

test('a prefill that ended before its limit left nothing: the decode engine computes', async () => {
  for (const order of ['prefill-first', 'concurrent']) {
    const proxy = await listen({ order });
    const dummy = { finish: 'stop', delay: 5 };
    const got = await complete(proxy.url, { prompt: 'short', max_tokens: 2, stream: true, dummy });
    assert.is(got.text, expected('short', 2));
    assert.is(got.events[0].kv, 'computed');
    await proxy.close();
  }
});

test('each data-parallel rank has its turn and its engine id', async () => {
  const { Engine } = await import('./engines.js');
  const wide = await Engine.start('p9', 'prefill', { ranks: 2 });
  const proxy = await listen({ prefill: [wide.options] });
  for (let i = 0; i < 4; i++)
    assert.is((await complete(proxy.url, { prompt: `r${i}`, max_tokens: 1 })).events[0].kv, 'transfer');
  const { log } = await wide.log();
  assert.equal(
    log.map(({ rank }) => rank),
    ['0', '1', '0', '1'],
  );
  await proxy.close();
  await wide.kill();
});

test('headers: authorization and ids reach the engines, connection headers do not', async () => {
  const proxy = await listen({ prefill: [p[0].options], decode: [d[0].url] });
  const headers = { authorization: 'Bearer secret', 'x-request-id': 'mine-1', 'x-data-parallel-rank': '7' };
  const got = await complete(proxy.url, { prompt: 'headers', max_tokens: 1, stream: true }, { headers });
  assert.is(got.headers.get('x-request-id'), 'mine-1');
  assert.is(got.headers.get('x-engine'), 'd1');
  for (const one of [p[0], d[0]]) {
    const entry = (await one.log()).log.at(-1)!;
    assert.is(entry.authorization, 'Bearer secret');
    assert.match(entry.id as string, /^mine-1-[0-9a-f-]{36}$/);
    assert.is.not(entry.rank, '7');
  }
  const odd = await complete(proxy.url, { prompt: 'h', max_tokens: 1 }, { headers: { 'x-request-id': 'bad id!' } });
  assert.match(odd.headers.get('x-request-id')!, /^[0-9a-f-]{36}$/);
  await proxy.close();
});

test('chat, models, tokenize', async () => {
  const proxy = await listen();
  const messages = [{ role: 'user', content: 'hi' }];
  const path = '/v1/chat/completions';
  const got = await complete(proxy.url, { messages, max_completion_tokens: 9, max_tokens: 2 }, { path });
  assert.is(got.text, expected(messages, 2));
  const sent = (await Promise.all(p.map((one) => one.log())))
    .flatMap(({ log }) => log)
    .find((one) => one.path === path)!;
  assert.is(JSON.parse(sent.body as string).max_completion_tokens, 1);
  const models = await (await fetch(`${proxy.url}/v1/models`)).json();
  assert.is((models as { data: { id: string }[] }).data[0].id, 'tiny');
  const body = JSON.stringify({ prompt: 'ab' });
  const tokens = await (await fetch(`${proxy.url}/tokenize`, { method: 'POST', body })).json();
  assert.equal(tokens, { tokens: [97, 98] });
  await proxy.close();
});

test('200 streams at once: none lost, none mixed', async () => {
  const proxy = await listen();
  const streams = Array.from({ length: 200 }, async (_, i) => {
    const prompt = i % 3 === 0 ? [i, 1, 2] : `stream ${i}`;
    const tokens = 5 + (i % 20);
    const got = await complete(proxy.url, { prompt, max_tokens: tokens, stream: true, dummy: { delay: i % 7 } });
    assert.is(got.text, expected(prompt, tokens));
    assert.is(got.done, true);
    assert.is(got.events[0].kv, 'transfer');
  });
  await Promise.all(streams);
  for (const one of p) assert.is((await one.quiet()).kept, 0);
  await proxy.close();
});

test.run();
