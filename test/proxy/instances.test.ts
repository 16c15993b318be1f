// Engines added and removed while requests run, engines that do not fit, and bad input to every door.
import { connect } from 'node:net';
import { XpydProxy } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { complete, Engine, expected, startEngines } from './engines.js';

const KEY = 'the key';
let engines: Record<string, Engine>;

test.before(async () => {
  engines = await startEngines('p1', 'p2', 'd1', 'd2');
});
test.after(async () => {
  await Promise.all(Object.values(engines).map((one) => one.kill()));
});

const listen = (options: object = {}) =>
  XpydProxy.listen({
    port: 0,
    prefill: [engines.p1.options],
    decode: [engines.d1.url],
    healthMs: 100,
    adminKey: KEY,
    ...options,
  });

async function change(proxy: XpydProxy, what: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`${proxy.url}/instances/${what}`, {
    method: 'POST',
    headers: { 'x-api-key': KEY, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return {
    status: response.status,
    body: (await response.json()) as Record<string, unknown> & { error: { message: string } },
  };
}
interface Status {
  prefill_nodes: string[];
  decode_nodes: string[];
  decode_node_count: number;
  instances: { instance: string; state: string; why?: string; in_flight: number; load_blocks: number }[];
}
const statusOf = async (proxy: XpydProxy) => (await (await fetch(`${proxy.url}/status`)).json()) as Status;
const host = ({ port }: Engine) => `127.0.0.1:${port}`;

test('instances are added and removed under load; removed ones end what they have', async () => {
  const proxy = await listen();
  const running = Array.from({ length: 20 }, async (_, i) => {
    const got = await complete(proxy.url, { prompt: `l${i}`, max_tokens: 30, stream: true, dummy: { delay: 10 } });
    assert.is(got.text, expected(`l${i}`, 30));
    assert.is(got.done, true);
  });
  while ((await engines.d1.log()).running === 0);
  const d2 = { type: 'decode', instance: host(engines.d2) };
  assert.equal((await change(proxy, 'add', d2)).body, { message: `Added ${d2.instance} to decode_instances.` });
  const p2 = { type: 'prefill', instance: host(engines.p2), bootstrap_port: engines.p2.port };
  assert.is((await change(proxy, 'add', p2)).status, 200);
  const d1 = { type: 'decode', instance: host(engines.d1) };
  const removed = await change(proxy, 'remove', d1);
  assert.is(removed.status, 200);
  assert.ok((removed.body.in_flight as number) > 0);
  const status = await statusOf(proxy);
  assert.equal(status.decode_nodes, [host(engines.d2)]);
  assert.is(status.decode_node_count, 1);
  assert.is(status.instances.find(({ instance }) => instance === engines.d1.url)?.state, 'draining');
  assert.is((await complete(proxy.url, { prompt: 'new', max_tokens: 1 })).events[0].engine, 'd2');
  await Promise.all(running);
  assert.not((await engines.d1.log()).log.some(({ prompt }) => prompt === '"new"'));
  const after = await statusOf(proxy);
  assert.not(after.instances.some(({ instance }) => instance === engines.d1.url));
  assert.ok(after.instances.every(({ in_flight, load_blocks }) => in_flight === 0 && load_blocks === 0));
  assert.is((await change(proxy, 'remove', { type: 'prefill', instance: host(engines.p1) })).status, 200);
  for (let i = 0; i < 2; i++) assert.is((await complete(proxy.url, { prompt: 'p2', max_tokens: 1 })).status, 200);
  assert.is((await engines.p2.log()).log.filter(({ prompt }) => prompt === '"p2"').length, 2);
  // And back.
  assert.is((await change(proxy, 'add', d1)).status, 200);
  await proxy.close();
});

test('who may add, and what', async () => {
  const proxy = await listen();
  const good = { type: 'decode', instance: host(engines.d2) };
  assert.is((await change(proxy, 'add', good, { 'x-api-key': 'wrong' })).status, 403);
  const without = await fetch(`${proxy.url}/instances/add`, { method: 'POST', body: JSON.stringify(good) });
  assert.is(without.status, 401);
  for (const [body, what] of [
    ['{', /body must be a JSON object/],
    ['[]', /body/],
    [{ type: 'both', instance: 'a:1' }, /type must be one of/],
    [{ type: 'decode' }, /instance must be a string/],
    [{ type: 'decode', instance: 'nohost' }, /instance must be "host:port"/],
    [{ type: 'decode', instance: 'h:99999' }, /instance/],
    [{ type: 'decode', instance: 'http://h:1/path' }, /instance/],
    [{ type: 'prefill', instance: 'h:1', bootstrap_port: 'x' }, /bootstrapPort must be an integer/],
    [{ type: 'decode', instance: host(engines.d1) }, /not among the decode instances/],
  ] as const) {
    const { status, body: answer } = await change(proxy, 'add', body);
    assert.is(status, 400, JSON.stringify(body));
    assert.match(answer.error.message, what);
  }
  assert.is((await change(proxy, 'add', { type: 'decode', instance: '127.0.0.1:1' })).status, 502);
  assert.is((await change(proxy, 'remove', good)).status, 400);
  assert.equal((await statusOf(proxy)).decode_nodes, [host(engines.d1)]);
  await proxy.close();
  const keyless = await listen({ adminKey: undefined });
  const refused = await change(keyless, 'add', good);
  assert.is(refused.status, 403);
  assert.match(refused.body.error.message, /ADMIN_API_KEY/);
  await keyless.close();
});

test('engines whose blocks the others would not find are refused where blocks are shared', async () => {
  const odd = await Engine.start('d3', 'decode', { algorithm: 'sha256' });
  const coarse = await Engine.start('p3', 'prefill', { blockSize: 32 });
  const proxy = await listen({ mode: 'store', prefill: [engines.p1.url] });
  const { status, body } = await change(proxy, 'add', { type: 'decode', instance: host(odd) });
  assert.is(status, 409);
  assert.match(body.error.message, /algorithm sha256, not sha256_cbor/);
  assert.match(
    (await change(proxy, 'add', { type: 'prefill', instance: host(coarse) })).body.error.message,
    /block size 32, not 16/,
  );
  await proxy.close();
  const direct = await listen();
  assert.is((await change(direct, 'add', { type: 'decode', instance: host(odd) })).status, 200);
  // Two engines with one bootstrap server: one of them has given the wrong port.
  const same = { type: 'prefill', instance: host(engines.p2), bootstrap_port: engines.p1.port };
  const twice = await change(direct, 'add', same);
  assert.is(twice.status, 409);
  assert.match(twice.body.error.message, /own bootstrap port/);
  await direct.close();
  await Promise.all([odd.kill(), coarse.kill()]);
});

test('engines that are not there yet are waited for', async () => {
  const spare = await Engine.start('d4', 'decode');
  const { port } = spare;
  await spare.kill();
  const lines: string[] = [];
  const proxy = await listen({ decode: [`127.0.0.1:${port}`], log: (line: string) => lines.push(line) });
  const early = await complete(proxy.url, { prompt: 'early', max_tokens: 1 });
  assert.is(early.status, 503);
  assert.match(JSON.stringify(early.events), /none of the 1 instances is available/);
  const back = await Engine.start('d4', 'decode', { port });
  while ((await fetch(`${proxy.url}/health`)).status !== 200);
  assert.is((await complete(proxy.url, { prompt: 'now', max_tokens: 1 })).status, 200);
  assert.ok(lines.some((line) => line.includes('starting -> ready')));
  await proxy.close();
  await back.kill();
});

test('bad requests are refused with what is wrong, and the next is served', async () => {
  const proxy = await listen({ model: 'tiny', maxBodyBytes: 4096 });
  const cases: [string | object, number, RegExp][] = [
    ['{"prompt": ', 400, /body must be JSON/],
    ['', 400, /body must be JSON/],
    ['[1]', 400, /body must be a JSON object/],
    ['null', 400, /body must be a JSON object/],
    [{ model: 7 }, 400, /model must be a string/],
    [{ model: 'other', prompt: 'x' }, 404, /model must be \\?"tiny/],
    [{ prompt: 'x'.repeat(5000) }, 413, /at most 4096 bytes/],
  ];
  for (const [body, status, what] of cases) {
    const got = await complete(proxy.url, body);
    assert.is(got.status, status, what.source);
    const { error } = got.events[0] as { error: { message: string; code: number } };
    assert.match(error.message, what);
    assert.is(error.code, status);
  }
  const type = await complete(proxy.url, '{}', { headers: { 'content-type': 'text/plain' } });
  assert.is(type.status, 415);
  assert.is((await fetch(`${proxy.url}/v1/embeddings`, { method: 'POST' })).status, 404);
  assert.is((await fetch(`${proxy.url}/constructor`)).status, 404);
  assert.is((await fetch(`${proxy.url}/v1/completions`)).status, 405);
  const good = { model: 'tiny', prompt: 'good', max_tokens: 2 };
  assert.is((await complete(proxy.url, good)).text, expected('good', 2));
  await proxy.close();
  const open = await listen();
  const unknown = await complete(open.url, { model: 'unknown', prompt: 'x' });
  assert.is(unknown.status, 404);
  assert.match(JSON.stringify(unknown.events), /does not exist/);
  await open.close();
});

/** Sends bytes as they are; what comes back until the connection ends. */
function raw(port: number, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.setEncoding('latin1').on('data', (data) => {
      text += data;
    });
    socket
      .on('end', () => socket.end())
      .on('close', () => resolve(text))
      .on('error', reject);
  });
}

test('headers that lie: a body without end is cut, a doubled length is refused, a huge head too', async () => {
  const proxy = await listen({ maxBodyBytes: 4096 });
  const port = Number(new URL(proxy.url).port);
  const head = 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
  const endless = `${head}Transfer-Encoding: chunked\r\n\r\n1000\r\n${'x'.repeat(4096)}\r\n1000\r\n${'x'.repeat(4096)}\r\n`;
  assert.match(await raw(port, endless), /^HTTP\/1.1 413[\s\S]*connection: close/i);
  assert.match(await raw(port, `${head}Content-Length: 99999999999\r\n\r\n{`), /^HTTP\/1.1 413/);
  assert.match(await raw(port, `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`), /^HTTP\/1.1 400/);
  assert.match(await raw(port, `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}`), /^HTTP\/1.1 400/);
  assert.match(await raw(port, `${head}X-A: ${'a'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1.1 431/);
  const body = '{"prompt":"one","max_tokens":1}';
  const close = `${head}Connection: close, x-hop\r\nX-Hop: 1\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n${body}`;
  const answer = await raw(port, close);
  assert.match(answer, /^HTTP\/1.1 100[\s\S]*HTTP\/1.1 200/);
  await proxy.close();
});

test('options that are wrong are refused by name', async () => {
  const cases: [object, RegExp][] = [
    [{ prefill: ['nohost'] }, /options.prefill\[0\]/],
    [{ decode: ['https://h:1'] }, /https.*not supported/],
    [{ decode: ['h:1', 'http://h:1'] }, /not among the decode instances/],
    [{ mode: 'x' }, /options.mode must be one of/],
    [{ scheduling: 'x' }, /options.scheduling/],
    [{ retries: -1 }, /options.retries/],
    [{ mode: 'bootstrap', prefill: [{ url: 'h:1', bootstrapPort: 'none' }] }, /needs one/],
    [{ port: 70_000 }, /options.port/],
  ];
  for (const [options, what] of cases) {
    try {
      await XpydProxy.listen({ port: 0, ...options } as object);
      assert.unreachable(what.source);
    } catch (error) {
      assert.match((error as Error).message, what);
    }
  }
});

test.run();
