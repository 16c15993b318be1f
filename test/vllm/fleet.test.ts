// Our connectors (integrations/vllm) behind mooncake-ts proxy: one prefill and one decode, then two of each at two node services,
// as on two hosts, of which one pair hands over alone and the other by MultiConnector, with a store. Engines are added, removed
// and killed under load; every answer is compared with that of an engine without a connector.
import { XpydProxy } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort } from '../support/masters.js';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { NodeService } from './support/node-service.js';
import { PROMPTS, randomPrompt, sum } from './support/prompts.js';
import { type CompletionReply, MODEL, Server } from './support/server.js';
import { stream, streamed } from './support/streams.js';

const engineTest = withVllm(test);
const KEY = 'the key';
const EXTERNAL = 'vllm:external_prefix_cache_hits_total';
const LOADS = 'vllm:mooncake_ts_load_seconds_count';
const BYTES = 'vllm:mooncake_ts_load_bytes_sum';
/** Of a token in the tests' model: keys and values of two heads of 64 elements, four layers. */
const TOKEN_BYTES = 2 * 2 * 64 * 4 * 2;
/** Each is sent once, so that none is in an engine's own cache. */
const LOAD = Array.from({ length: 48 }, (_, i) => randomPrompt(90 + 7 * i, 500 + i));
/** Prefills of 12 steps. */
const LONG = [1, 2].map((i) => randomPrompt(3000, 700 + i));
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Status {
  readonly prefill_nodes: readonly string[];
  readonly decode_nodes: readonly string[];
  readonly instances: readonly { readonly instance: string; readonly state: string; readonly requests: number }[];
}

interface Pair {
  readonly prefill: Server;
  readonly decode: Server;
  readonly bootstrapPort: number;
}

/** A prefill and a decode engine at one service. */
async function startPair(servers: Server[], service: NodeService, number: number): Promise<Pair> {
  const bootstrapPort = await freePort();
  const port = ['--bootstrap-port', `${bootstrapPort}`];
  const args = (role: string) =>
    number === 1 ? service.args(role, ...port) : service.args('multi', '--role', role, ...port);
  const [prefill, decode] = await Server.startAll(servers, [
    { name: `prefill ${number}`, ...(await args('prefill')) },
    { name: `decode ${number}`, ...(await args('decode')) },
  ]);
  return { prefill, decode, bootstrapPort };
}

async function change(proxy: XpydProxy, what: 'add' | 'remove', pair: Pair): Promise<void> {
  const of = ({ url }: Server) => url.slice('http://'.length);
  for (const body of [
    { type: 'prefill', instance: of(pair.prefill), bootstrap_port: pair.bootstrapPort },
    { type: 'decode', instance: of(pair.decode) },
  ]) {
    const response = await fetch(`${proxy.url}/instances/${what}`, {
      method: 'POST',
      headers: { 'x-api-key': KEY, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    assert.is(response.status, 200, await response.text());
  }
}

/** One answer for several prompts. */
async function complete(url: string, prompt: readonly number[][]): Promise<CompletionReply> {
  const body = { model: MODEL, prompt, temperature: 0, ignore_eos: true, return_token_ids: true, max_tokens: 40 };
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.is(response.status, 200);
  return (await response.json()) as CompletionReply;
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not in a minute: ${what}`);
    await wait(20);
  }
}

engineTest('1P1D, then 2P2D: instances come, go and die under load', async () => {
  const expected = await baseline();
  const answers = await baseline([...LOAD, ...LONG]);
  const unsent = LOAD.map((prompt, i) => ({ prompt, answer: answers[i] }));
  const servers: Server[] = [];
  const services: NodeService[] = [];
  let proxy: XpydProxy | undefined;
  try {
    for (let i = 0; i < 2; i++) services.push(await NodeService.start());
    const first = await startPair(servers, services[0], 1);
    const second = await startPair(servers, services[1], 2);
    proxy = await XpydProxy.listen({ port: 0, mode: 'bootstrap', healthMs: 200, adminKey: KEY });
    const { url } = proxy;
    const status = async () => (await (await fetch(`${url}/status`)).json()) as Status;
    const served = async (server: Server) =>
      (await status()).instances.find(({ instance }) => instance === server.url)?.requests ?? 0;
    /** Sends prompts that are new to all engines, three at a time. */
    const serve = async (count: number) => {
      const mine = unsent.splice(0, count);
      assert.is(mine.length, count);
      const send = async () => {
        for (let one = mine.shift(); one; one = mine.shift()) {
          sameTokens([{ tokens: await stream(url, one.prompt) }], [one.answer]);
        }
      };
      await Promise.all([send(), send(), send()]);
    };

    await change(proxy, 'add', first);
    const alone = await Promise.all(PROMPTS.map(async (prompt) => ({ tokens: await stream(url, prompt) })));
    sameTokens(alone, expected);
    // All of each prompt, of which one token is computed again; one observation a request.
    const metrics = await first.decode.metrics();
    const handed = sum(PROMPTS.map(({ length }) => length));
    assert.is(metrics[EXTERNAL], handed);
    assert.is(metrics[LOADS], PROMPTS.length);
    assert.ok(metrics[BYTES] >= handed * TOKEN_BYTES, `${metrics[BYTES]} bytes loaded`);

    const joined = serve(12);
    await change(proxy, 'add', second);
    await joined;
    await serve(4);
    for (const server of [second.prefill, second.decode]) assert.ok((await served(server)) > 0, server.process.name);

    const left = serve(10);
    await change(proxy, 'remove', first);
    await left;
    await until('the first pair has ended what it had', async () => (await status()).instances.length === 2);
    const before = await served(second.decode);
    await serve(4);
    assert.is(await served(second.decode), before + 4);

    // What one transfer cannot serve goes through the store that both know.
    const both = await XpydProxy.listen({
      port: 0,
      mode: 'multi',
      prefill: [{ url: second.prefill.url, bootstrapPort: second.bootstrapPort }],
      decode: [second.decode.url],
    });
    try {
      const [one, two] = unsent.splice(0, 2);
      const { choices } = await complete(both.url, [one.prompt, two.prompt]);
      sameTokens(
        choices.map(({ token_ids: tokens }) => ({ tokens })),
        [one.answer, two.answer],
      );
      const counted = await (await fetch(`${both.url}/metrics`)).text();
      assert.match(counted, /^mooncake_proxy_handovers_total\{kind="store"\} 1$/m);
    } finally {
      await both.close();
    }

    await change(proxy, 'add', first);
    await serve(4);

    // A decode engine that dies ends the stream that it has, with an error, and no other.
    let begun = 0;
    let bothBegun!: () => void;
    const begin = new Promise<void>((resolve) => {
      bothBegun = resolve;
    });
    const endless = PROMPTS.slice(0, 2).map((prompt) => {
      let mine = false;
      const onTokens = () => {
        if (!mine && ++begun === 2) bothBegun();
        mine = true;
      };
      return streamed(url, prompt, { more: { max_tokens: 1500 }, onTokens });
    });
    await begin;
    await first.decode.kill();
    const ended = await Promise.all(endless);
    assert.equal(ended.map(({ done, error }) => done && error === undefined).sort(), [false, true]);
    for (const [i, { tokens, done, error }] of ended.entries()) {
      assert.equal(tokens.slice(0, 40), expected[i].slice(0, tokens.length));
      if (done) assert.is(tokens.length, 1500);
      else assert.ok(error, 'a stream that is cut off says why');
    }
    await serve(4);

    // What a prefill engine had when it died is computed by another one.
    const long = LONG.map((prompt) => stream(url, prompt));
    const running = async ({ prefill }: Pair) => ((await prefill.metrics())['vllm:num_requests_running'] ?? 0) > 0;
    await until('both prefills compute', async () => (await running(first)) && (await running(second)));
    await first.prefill.kill();
    const whole = await Promise.all(long);
    sameTokens(
      whole.map((tokens) => ({ tokens })),
      answers.slice(LOAD.length),
    );
    await serve(4);
  } finally {
    await proxy?.close();
    await Promise.all(servers.map((server) => server.stop()));
    for (const service of services) await service.end();
  }
});

test.run();
