// docs/vllm.md, word for word: its commands bring up engines that share a store, and a prefill and a decode behind the proxy.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withVllm } from './support/available.js';
import { baseline, sameTokens } from './support/baseline.js';
import { Guide, type Running } from './support/guide.js';
import { LOADABLE, PROMPTS, sum } from './support/prompts.js';
import { type CompletionReply, FRESH } from './support/server.js';

const engineTest = withVllm(test);
const START_MS = 300_000;
const REQUEST_MS = 120_000;

const isOk = async ({ ok }: Response) => ok;
/** A proxy that knows all its engines: before that a decode engine computes alone. */
const hasEngines = async (response: Response) =>
  ((await response.json()) as { instances: { state: string }[] }).instances.every(({ state }) => state === 'ready');

async function until(isReady: (response: Response) => Promise<boolean>, url: string, commands: Running): Promise<void> {
  const isUp = () => fetch(url, { headers: FRESH, signal: AbortSignal.timeout(2000) }).then(isReady, () => false);
  for (const deadline = Date.now() + START_MS; !(await isUp()); ) {
    assert.ok(Date.now() < deadline, `nothing at ${url}; the end of what was printed:\n${commands.log}`);
    await new Promise((done) => setTimeout(done, 250));
  }
}

/** The tests' prompts, one after the other. */
async function complete(url: string, commands: Running): Promise<{ tokens: number[] }[]> {
  const model = process.env.MOONCAKE_VLLM_MODEL;
  const answers = [];
  for (const prompt of PROMPTS) {
    const body = { model, prompt, temperature: 0, ignore_eos: true, return_token_ids: true, max_tokens: 40 };
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { ...FRESH, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_MS),
    });
    const text = await response.text();
    assert.ok(response.ok, `${response.status}: ${text}\n${commands.log}`);
    answers.push({ tokens: (JSON.parse(text) as CompletionReply).choices[0].token_ids });
  }
  return answers;
}

/** Tokens of prompts that came from outside of an engine. */
async function external(url: string): Promise<number> {
  const response = await fetch(`${url}/metrics`, { headers: FRESH, signal: AbortSignal.timeout(REQUEST_MS) });
  const text = await response.text();
  return Number(/^vllm:external_prefix_cache_hits_total\{.*\} (\S+)$/m.exec(text)?.[1]);
}

engineTest('a reader comes from nothing to a shared store, and to prefill and decode', async () => {
  const expected = await baseline();
  const guide = new Guide();
  try {
    const [store, handover] = await guide.blocks('Connectors of mooncake-ts');
    const service = guide.run(store);
    const engine = guide.url(8000);
    await until(isOk, `${engine}/health`, service);
    sameTokens(await complete(engine, service), expected);
    assert.is(await external(engine), 0);
    await guide.stopEngine(8000);

    const again = guide.run(store.trimEnd().split('\n').at(-1)!);
    await until(isOk, `${engine}/health`, again);
    sameTokens(await complete(engine, again), expected);
    assert.is(await external(engine), sum(LOADABLE));
    await guide.stopEngine(8000);

    const pair = guide.run(handover);
    await until(hasEngines, `${guide.url(9000)}/status`, pair);
    sameTokens(await complete(guide.url(9000), pair), expected);
    assert.is(await external(guide.url(8200)), sum(PROMPTS.map(({ length }) => length)));
  } finally {
    await guide.end();
  }
});

test.run();
