/**
 * The reference engine: how fast it computes a prompt of 512 tokens, how fast it generates behind it, and what finding the
 * prompt's KV in its own blocks saves. One thread, the default model, medians.
 *
 * Then two of them that hand the prompt over by TCP, computed in 8 chunks, both requests sent at once: how much of its KV
 * is at the decode when the prefill ends, and how long the decode's first token then takes, layer by layer against pushed
 * at the end. Both engines share this thread, so what moves early takes its time from the prefill.
 *
 *     npm run bench -- engine [--json]
 */
import { MooncakeConnector, TcpTransfer } from 'mooncake-ts';
import { encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import { median, report } from './support/report.js';

const PROMPT = 512;
const OUTPUT = 65;
const RUNS = 5;

const prompt = encode('The quick brown fox jumps over the lazy dog. '.repeat(12).slice(0, PROMPT - 1));
const engine = new ReferenceEngine();

async function run(cold: boolean) {
  if (cold) engine.resetPrefixCache();
  const { ttftMs, durationMs } = await engine.generate(prompt, { maxTokens: OUTPUT, ignoreEos: true }).result;
  return { ttftMs, perToken: (durationMs - ttftMs) / (OUTPUT - 1) };
}

await run(true);
const runs = [];
for (let i = 0; i < RUNS; i++) runs.push({ cold: await run(true), warm: await run(false) });
await engine.close();

const cold = median(runs.map((pair) => pair.cold.ttftMs));
const warm = median(runs.map((pair) => pair.warm.ttftMs));
const perToken = median(runs.flatMap((pair) => [pair.cold.perToken, pair.warm.perToken]));
report({ name: `prompt of ${PROMPT} tokens, computed`, value: (1000 * PROMPT) / cold, unit: 'tokens/s' }, 'higher');
report({ name: `generation behind ${PROMPT} tokens`, value: 1000 / perToken, unit: 'tokens/s' }, 'higher');
report(
  { name: 'first token, prompt in own blocks', value: warm, unit: 'ms', baseline: cold, peer: 'prompt computed' },
  'lower',
);

type Mode = 'push' | 'layers';

/** Hands prompts over between two engines of their own. */
async function openPair(mode: Mode) {
  const [source, target] = await Promise.all([TcpTransfer.listen(), TcpTransfer.listen()]);
  const prefill = new ReferenceEngine({ connector: new MooncakeConnector({ transfer: source }), maxBatchedTokens: 64 });
  const decode = new ReferenceEngine({ connector: new MooncakeConnector({ transfer: target, mode }) });
  let transfers = 0;
  return {
    async run() {
      for (const engine of [prefill, decode]) engine.resetPrefixCache();
      const transfer_id = `${mode}-${++transfers}`;
      const began = performance.now();
      const decoding = decode.generate(prompt, {
        maxTokens: 1,
        ignoreEos: true,
        kvTransferParams: {
          do_remote_prefill: true,
          transfer_id,
          remote_engine_id: prefill.info.engineId,
          remote_bootstrap_addr: source.address,
        },
      });
      const before = prefill.stats().connector.bytesPushedEarly;
      const kvTransferParams = { do_remote_decode: true, transfer_id };
      await prefill.generate(prompt, { maxTokens: 1, ignoreEos: true, kvTransferParams }).result;
      const prefilled = performance.now();
      const { bytesPushedEarly } = prefill.stats().connector;
      await decoding.result;
      return {
        early: bytesPushedEarly - before,
        total: performance.now() - began,
        after: performance.now() - prefilled,
      };
    },
    async close() {
      await Promise.all([prefill.close(), decode.close()]);
      await Promise.all([source.close(), target.close()]);
    },
  };
}

const [pushed, layered] = await Promise.all([openPair('push'), openPair('layers')]);
const pairs = [];
for (let i = 0; i <= RUNS; i++) pairs.push({ push: await pushed.run(), layers: await layered.run() });
// The first run connects.
pairs.shift();
await Promise.all([pushed.close(), layered.close()]);

/** Keys and values of the default model, float32. */
const KV_BYTES = PROMPT * 2048;
const of = (mode: Mode, what: 'early' | 'total' | 'after') => median(pairs.map((pair) => pair[mode][what]));
report(
  {
    name: 'layers: KV at the decode when the prefill ends',
    value: (100 * of('layers', 'early')) / KV_BYTES,
    unit: '%',
  },
  'higher',
);
for (const [name, what] of [
  ['layers: first decode token after the prefill', 'after'],
  ['layers: first decode token', 'total'],
] as const) {
  const baseline = of('push', what);
  report({ name, value: of('layers', what), unit: 'ms', baseline, peer: 'pushed at the end' }, 'lower');
}
