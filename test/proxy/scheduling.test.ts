// Where requests go: turns, load, and prefixes that an engine has computed before.
import { XpydProxy } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { complete, Engine, startEngines } from './engines.js';

let engines: Record<string, Engine>;
test.before(async () => {
  engines = await startEngines('p1', 'p2', 'p3', 'd1');
});
test.after(async () => {
  await Promise.all(Object.values(engines).map((one) => one.kill()));
});

const listen = (scheduling: string, options: object = {}) =>
  XpydProxy.listen({
    port: 0,
    prefill: [engines.p1.options, engines.p2.options, engines.p3.options],
    decode: [engines.d1.url],
    healthMs: 100,
    scheduling: scheduling as 'round_robin',
    ...options,
  });

/** Names of the prefill engines that had a prompt. */
async function prefilled(prompt: unknown): Promise<string[]> {
  const had = [];
  for (const one of [engines.p1, engines.p2, engines.p3]) {
    const { log } = await one.log();
    for (const entry of log) if (entry.prompt === JSON.stringify(prompt)) had.push(one.name);
  }
  return had;
}
const metric = async (proxy: XpydProxy, name: string) => {
  const text = await (await fetch(`${proxy.url}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1] ?? 0,
  );
};
const tokens = (first: number, length: number) => Array.from({ length }, (_, i) => first + i);

test('least_loaded: not where a long prompt is worked on', async () => {
  const proxy = await listen('least_loaded');
  const long = tokens(1, 4000);
  const busy = complete(proxy.url, { prompt: long, max_tokens: 1, dummy: { prefillDelay: 1000 } });
  while ((await prefilled(long)).length === 0);
  const [name] = await prefilled(long);
  for (let i = 0; i < 6; i++) {
    const prompt = [7, i];
    await complete(proxy.url, { prompt, max_tokens: 1 });
    assert.is.not((await prefilled(prompt))[0], name);
  }
  await busy;
  await proxy.close();
});

test('prefix_aware: a prompt that goes on goes where its beginning is', async () => {
  const proxy = await listen('prefix_aware');
  const families = [tokens(1000, 640), tokens(5000, 640), tokens(9000, 640)];
  const homes: string[] = [];
  for (const prompt of families) {
    await complete(proxy.url, { prompt, max_tokens: 1 });
    homes.push((await prefilled(prompt))[0]);
  }
  for (let turn = 0; turn < 3; turn++) {
    for (const [i, family] of families.entries()) {
      const prompt = [...family, ...tokens(turn * 100, 32)];
      await complete(proxy.url, { prompt, max_tokens: 1 });
      assert.equal(await prefilled(prompt), [homes[i]]);
    }
  }
  assert.is(await metric(proxy, 'mooncake_proxy_prompt_tokens_total{from="request"}'), 12);
  assert.is(await metric(proxy, 'mooncake_proxy_choices_total{by="prefix_aware"}'), 12);
  assert.is(await metric(proxy, 'mooncake_proxy_overlap_blocks_total'), 3 * 3 * 40);
  // Another salt, another model: nothing in common.
  await complete(proxy.url, { prompt: families[0], cache_salt: 'a', max_tokens: 1 });
  await complete(proxy.url, { prompt: families[0], model: 'lora', max_tokens: 1 });
  assert.is(await metric(proxy, 'mooncake_proxy_overlap_blocks_total'), 3 * 3 * 40);
  await proxy.close();
});

test('prefix_aware: text is tokenized by an engine, once; too late is counted and served by load', async () => {
  const proxy = await listen('prefix_aware');
  const from = (what: string) => metric(proxy, `mooncake_proxy_prompt_tokens_total{from="${what}"}`);
  const text = 'many words '.repeat(40);
  await complete(proxy.url, { prompt: text, max_tokens: 1 });
  // Tokenized in time or, on a busy machine, just after.
  while ((await from('cache')) === 0) await complete(proxy.url, { prompt: text, max_tokens: 1 });
  const slow = `slow ${text}`;
  await complete(proxy.url, { prompt: slow, max_tokens: 1 });
  const late = await from('late');
  assert.ok(late >= 1);
  assert.ok((await metric(proxy, 'mooncake_proxy_choices_total{by="least_loaded"}')) >= 1);
  // Its tokens came after all.
  const before = await from('cache');
  for (let i = 0; (await from('cache')) === before && i < 100; i++) {
    await complete(proxy.url, { prompt: slow, max_tokens: 1 });
  }
  assert.is(await from('cache'), before + 1);
  const messages = [{ role: 'user', content: text }];
  await complete(proxy.url, { messages, max_tokens: 1 }, { path: '/v1/chat/completions' });
  const asked = (await engines.p1.log()).log.filter(({ path }) => path === '/tokenize').length;
  assert.ok(asked >= 3);
  await proxy.close();
});

test('prefix_aware: an engine that died has nothing', async () => {
  const mortal = await Engine.start('p4', 'prefill');
  const proxy = await listen('prefix_aware', {
    prefill: [mortal.options, engines.p1.options],
    decode: [engines.d1.url],
  });
  const prompt = tokens(20_000, 640);
  for (let i = 0; i < 2; i++) await complete(proxy.url, { prompt, max_tokens: 1 });
  const known = await metric(proxy, 'mooncake_proxy_index_blocks');
  assert.is(known, 40);
  const home = (await prefilled(prompt)).length === 0 ? mortal : undefined;
  await mortal.kill();
  for (let i = 0; i < 3; i++)
    assert.is((await complete(proxy.url, { prompt, max_tokens: 1 })).events[0].kv, 'transfer');
  assert.ok((await prefilled(prompt)).length >= 3);
  if (home) assert.is(await metric(proxy, 'mooncake_proxy_index_blocks'), 40);
  await proxy.close();
});

test('prefix_aware: no more is credited than the cache of an engine holds', async () => {
  const proxy = await listen('prefix_aware', { prefill: [engines.p1.options] });
  // 64 blocks of 16 tokens.
  for (let i = 0; i < 8; i++) await complete(proxy.url, { prompt: tokens(i * 1000, 400), max_tokens: 1 });
  assert.ok((await metric(proxy, 'mooncake_proxy_index_blocks')) <= 80);
  // What was used last is still there.
  const before = await metric(proxy, 'mooncake_proxy_overlap_blocks_total');
  await complete(proxy.url, { prompt: tokens(7000, 400), max_tokens: 1 });
  assert.is((await metric(proxy, 'mooncake_proxy_overlap_blocks_total')) - before, 25);
  await proxy.close();
});

test.run();
