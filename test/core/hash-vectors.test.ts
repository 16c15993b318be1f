import { blockHashes, blockHashesBatch, type ExtraKey, type HashAlgorithm, noneHash } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hex, readVectors, ruled, untuple, type Vector } from '../support/vectors.js';

const { vectors } = readVectors<{ vectors: Vector[] }>('block_hash_vectors.json');

interface Made {
  noneHashes: { algorithm: HashAlgorithm; seed: string; hash: string }[];
  chains: {
    algorithm: HashAlgorithm;
    blockSize: number;
    tokens: number[] | null;
    rule: number[] | null;
    extraKeys: (ExtraKey[] | null)[] | null;
    big: boolean;
    hashes: string[];
    count: number;
  }[];
}

const made = readVectors<Made>('block_hashes.json');

test("every one of vLLM's 336 vectors, with its group and event forms", () => {
  assert.is(vectors.length, 336);
  for (const vector of vectors) {
    const { algo: algorithm, pythonhashseed: seed, block_size: blockSize, tokens, parent } = vector;
    if (vector.kind === 'none_hash') {
      assert.is(hex(noneHash(algorithm, seed)), vector.hash);
      continue;
    }
    const extraKeys = vector.extra_keys === null ? null : [untuple(vector.extra_keys) as ExtraKey[]];
    const hashes = blockHashes(tokens, { blockSize, algorithm, seed, parent, extraKeys });
    assert.equal(hashes.toHex(), [vector.hash], JSON.stringify(vector));
    assert.is(hex(hashes.withGroup(0)), vector.with_group_id_0);
    assert.is(hex(hashes.withGroup(7)), vector.group7);
    // JSON.parse rounded the published integer, Number rounds ours alike.
    assert.is(Number(hashes.events()[0]), vector.event_int64);
  }
});

test('the same vectors in one batch for each algorithm, block size and seed', () => {
  const groups = new Map<string, Vector[]>();
  for (const vector of vectors) {
    if (vector.kind === 'none_hash') continue;
    const key = JSON.stringify([vector.algo, vector.pythonhashseed, vector.block_size]);
    groups.set(key, [...(groups.get(key) ?? []), vector]);
  }
  for (const [key, group] of groups) {
    const [algorithm, seed, blockSize] = JSON.parse(key);
    const prompts = group.map(({ tokens, parent, extra_keys }) => ({
      tokens: Uint32Array.from(tokens),
      parent,
      extraKeys: extra_keys === null ? null : [untuple(extra_keys) as ExtraKey[]],
    }));
    const hashes = blockHashesBatch(prompts, { algorithm, seed, blockSize });
    assert.equal(
      hashes.map((own) => own.hex(0)),
      group.map((vector) => vector.hash),
    );
  }
});

test('NONE_HASH of short, long and non-ASCII seeds', () => {
  for (const { algorithm, seed, hash } of made.noneHashes) assert.is(hex(noneHash(algorithm, seed)), hash);
});

test('token widths, block sizes, chains and extra keys of every kind, as vLLM hashes them', () => {
  assert.ok(made.chains.length > 150);
  for (const { algorithm, blockSize, tokens, rule, extraKeys, big, hashes, count } of made.chains) {
    const keys = big ? [extraKeys![0]!.map((key) => BigInt(key as string))] : extraKeys;
    const ours = blockHashes(tokens ?? ruled(rule!), { blockSize, algorithm, seed: '0', extraKeys: keys });
    const what = `${algorithm} ${blockSize} ${JSON.stringify(rule ?? tokens)} ${JSON.stringify(extraKeys)?.slice(0, 200)}`;
    assert.is(ours.length, count, what);
    assert.equal(ours.toHex().slice(-3), hashes, what);
  }
});

test.run();
