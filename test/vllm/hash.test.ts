import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import {
  blockHashes,
  blockHashesBatch,
  type ExtraKey,
  type ExtraKeysRequest,
  extraKeys,
  type HashAlgorithm,
  noneHash,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hex } from '../support/vectors.js';

type Case = Omit<ExtraKeysRequest, 'tokens'> & {
  kind: 'chain' | 'request';
  tokens: number[];
  algorithm: HashAlgorithm;
  seed: string | null;
  extraKeys: (ExtraKey[] | null)[];
  group: number;
  noneHash: string;
  hashes: string[];
  grouped: string | null;
  event: string | null;
};

const COUNT = 4000;
const seed = process.env.MOONCAKE_TEST_SEED ?? String(randomInt(2 ** 31));

const printed = execFileSync(
  process.env.MOONCAKE_VLLM_PYTHON ?? 'python3',
  [fileURLToPath(new URL('generate.py', import.meta.url)), seed, String(COUNT)],
  { encoding: 'utf8', maxBuffer: 2 ** 30 },
);
const cases = printed
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Case);

const keysOf = (own: Case) => (own.kind === 'chain' ? own.extraKeys : extraKeys({ ...own, tokens: own.tokens.length }));
const say = (own: Case) => `MOONCAKE_TEST_SEED=${seed}: ${JSON.stringify(own).slice(0, 2000)}`;

test(`${COUNT} random chains and requests have the hashes that vLLM gives them`, () => {
  assert.is(cases.length, COUNT);
  assert.ok(cases.reduce((sum, own) => sum + own.hashes.length, 0) > 20 * COUNT);
  for (const own of cases) {
    const hashes = blockHashes(own.tokens, { ...own, extraKeys: keysOf(own) });
    assert.equal(hashes.toHex(), own.hashes, say(own));
    assert.is(hex(noneHash(own.algorithm, own.seed)), own.noneHash, say(own));
    if (hashes.length === 0) continue;
    const last = hashes.slice(hashes.length - 1);
    assert.is(hex(last.withGroup(own.group)), own.grouped, say(own));
    assert.is(String(last.events()[0]), own.event, say(own));
  }
});

test('the same in batches, many prompts in one call', () => {
  const groups = new Map<string, Case[]>();
  for (const own of cases) {
    const key = JSON.stringify([own.algorithm, own.blockSize]);
    groups.set(key, [...(groups.get(key) ?? []), own]);
  }
  for (const group of groups.values()) {
    const [{ algorithm, blockSize }] = group;
    const prompts = group.map((own) => ({ tokens: own.tokens, parent: own.noneHash, extraKeys: keysOf(own) }));
    const batch = blockHashesBatch(prompts, { algorithm, blockSize });
    for (const [i, own] of group.entries()) assert.equal(batch[i].toHex(), own.hashes, say(own));
  }
});

test.run();
