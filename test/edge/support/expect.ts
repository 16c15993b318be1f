/** The scenario's input, and what must come out of it: known from vLLM's vectors and by construction, not from a run. */
import { readFileSync } from 'node:fs';
import { blockHashes, PrefixIndex } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import type { ScenarioInput, ScenarioReport } from '../scenario.js';

interface Vector {
  kind: 'block' | 'none_hash';
  algo: ScenarioInput['seeds'][number]['algorithm'];
  pythonhashseed: string | null;
  seed_string: string;
  block_size: number;
  parent: string | null;
  tokens: number[];
  extra_keys: never[] | null;
  extra_name: string;
  hash: string;
}

const BLOCK = 16;
const INSTANCES = 4;
const options = { algorithm: 'sha256_cbor', blockSize: BLOCK, seed: '0' } as const;

function vectors(): Vector[] {
  const file = new URL('../../vectors/block_hash_vectors.json', import.meta.url);
  // Python's tuples are written {"tuple": […]}.
  return JSON.parse(readFileSync(file, 'utf8'), (_, value) => value?.tuple ?? value).vectors;
}

/** The first vector of each kind: algorithm, extra keys, with and without a parent. */
function sample(all: Vector[]): Vector[] {
  const seen = new Map<string, Vector>();
  for (const vector of all) {
    const key = [vector.algo, vector.extra_name, vector.parent === null, vector.pythonhashseed === null].join();
    if (!seen.has(key)) seen.set(key, vector);
  }
  return [...seen.values()];
}

const prompt = (stem: number, blocks: number) =>
  Array.from({ length: blocks * BLOCK }, (_, i) => (stem * 65_537 + i * 2_654_435_761) % 128_000);

/** Who holds how much of which prompt: [prompt, instance, tier, blocks]. */
const HELD = [
  [0, 0, 'gpu', 40],
  [0, 1, 'gpu', 25],
  [0, 3, 'cpu', 40],
  [1, 2, 'gpu', 12],
  [1, 2, 'cpu', 30],
  [2, 1, 'gpu', 3],
] as const;
const PROMPT_BLOCKS = [40, 30, 20, 5];

export interface Expectation {
  input: ScenarioInput;
  report: ScenarioReport;
}

export function expectation(): Expectation {
  const all = vectors();
  const seeds = all.filter(({ kind }) => kind === 'none_hash');
  const blocks = sample(all.filter(({ kind }) => kind === 'block'));
  assert.ok(blocks.length >= 16, 'the vectors cover every algorithm and kind of extra key');
  const prompts = PROMPT_BLOCKS.map((count, stem) => prompt(stem, count));
  const index = new PrefixIndex({ keyWidth: 32 });
  for (let id = 0; id < INSTANCES; id++) index.addInstance(`gpu-${id}`);
  for (const [stem, instance, tier, count] of HELD) {
    index.insert(instance, blockHashes(prompts[stem].slice(0, count * BLOCK), options), { tier });
  }
  const held = (stem: number, tier: string) =>
    Array.from({ length: INSTANCES }, (_, id) =>
      Math.max(0, ...HELD.map(([s, i, t, count]) => (s === stem && i === id && t === tier ? count : 0))),
    );
  return {
    input: {
      blocks: blocks.map(({ algo, pythonhashseed, block_size, parent, tokens, extra_keys }) => ({
        tokens,
        options: {
          algorithm: algo,
          blockSize: block_size,
          seed: pythonhashseed ?? 'vllm-none-hash',
          parent,
          extraKeys: extra_keys && [extra_keys],
        },
      })),
      seeds: seeds.map(({ algo, seed_string }) => ({ algorithm: algo, seed: seed_string })),
      snapshot: Buffer.from(index.snapshot()).toString('base64'),
      options,
      prompts,
      instances: INSTANCES,
    },
    report: {
      blocks: blocks.map(({ hash }) => hash),
      seeds: seeds.map(({ hash }) => hash),
      lengths: PROMPT_BLOCKS.map((_, stem) => [...held(stem, 'gpu'), ...held(stem, 'cpu')]),
      choices: CHOICES,
      refusals: REFUSALS,
      again: CHOICES,
    },
  };
}

// Policy half, by hand: 40 of 40 in gpu; 12 in gpu and 18 more in cpu; 3 of 20 is too little and 0 of 5 nothing, so the
// turn decides, which after instance 2 is at 3 and then at 0.
const CHOICES: ScenarioReport['choices'] = [
  { instance: 0, state: 'exact', overlap: 40, cursor: 1 },
  { instance: 2, state: 'exact', overlap: 30, cursor: 3 },
  { instance: 3, state: 'fallback', overlap: 0, cursor: 0 },
  { instance: 0, state: 'fallback', overlap: 0, cursor: 1 },
];

const REFUSALS = [
  'ERR_INVALID_ARGUMENT tokens',
  'ERR_INVALID_ARGUMENT tokens[0]',
  'ERR_INVALID_ARGUMENT blockSize',
  'ERR_INVALID_ARGUMENT algorithm',
  'ERR_SNAPSHOT snapshot',
  'ERR_SNAPSHOT snapshot',
  'ERR_SNAPSHOT snapshot',
  'ERR_INVALID_ARGUMENT hashes',
  'ERR_INVALID_ARGUMENT instances',
];
