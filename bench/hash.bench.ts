/**
 * Block hashing against vLLM's own Python functions (a process of its own, taking turns with ours in the same run; what
 * it needs comes as for the vllm test lane, or from MOONCAKE_VLLM_PYTHON), and against hash-wasm and node:crypto with
 * CBOR in JavaScript. Prompts of 131,072 tokens, blocks of 16; medians, one thread. Hashes of all are compared first.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { createSHA256, createXXHash3, createXXHash128 } from 'hash-wasm';
import { blockHashes, blockHashesBatch, type HashAlgorithm, noneHash, sequenceHashes } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const TOKENS = 131_072;
const BLOCK = 16;
const BLOCKS = TOKENS / BLOCK;
const ROUNDS = 21;
const PROMPTS = 4;
const ALGORITHMS: HashAlgorithm[] = ['sha256_cbor', 'xxhash_cbor', 'sha256', 'xxhash'];

const prompts = Array.from({ length: PROMPTS }, (_, prompt) => {
  let state = prompt + 1;
  return Int32Array.from({ length: TOKENS }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % 151_936;
  });
});
const [tokens] = prompts;
const options = (algorithm: HashAlgorithm) => ({ blockSize: BLOCK, algorithm, seed: '0' });

/** A chain with CBOR in JavaScript and any digest. */
function cborChain(parent: Uint8Array, hash: (message: Uint8Array) => Uint8Array): Uint8Array {
  const message = new Uint8Array(256);
  let head = 0;
  message[head++] = 0x83;
  if (parent.length > 23) message[head++] = 0x58;
  message[head++] = parent.length > 23 ? parent.length : 0x40 | parent.length;
  for (let at = 0; at < TOKENS; at += BLOCK) {
    message.set(parent, head);
    let p = head + parent.length;
    message[p++] = 0x80 | BLOCK;
    for (let i = at; i < at + BLOCK; i++) {
      const token = tokens[i];
      if (token < 24) message[p++] = token;
      else if (token < 256) {
        message[p++] = 0x18;
        message[p++] = token;
      } else if (token < 65536) {
        message[p++] = 0x19;
        message[p++] = token >> 8;
        message[p++] = token;
      } else {
        message[p++] = 0x1a;
        message[p++] = token >>> 24;
        message[p++] = token >>> 16;
        message[p++] = token >>> 8;
        message[p++] = token;
      }
    }
    message[p++] = 0xf6;
    parent = hash(message.subarray(0, p));
  }
  return parent;
}

interface Peer {
  /** Nanoseconds a block of one run. */
  time(algorithm: HashAlgorithm): Promise<number>;
  lastHash: string;
  close(): void;
}

/** The Python process, or undefined with the reason printed. */
async function vllm(): Promise<Peer | undefined> {
  const folder = resolve('test/vllm');
  const { default: prepare } = await import(pathToFileURL(join(folder, 'setup.mjs')).href);
  const { env, skip } = await prepare();
  if (skip) {
    missing('hash/vllm', skip);
    return undefined;
  }
  const temporary = mkdtempSync(join(tmpdir(), 'mooncake-hash-'));
  const file = join(temporary, 'tokens.bin');
  writeFileSync(file, new Uint8Array(tokens.buffer));
  const child = spawn(env.MOONCAKE_VLLM_PYTHON, [resolve('bench/support/vllm_hash.py'), folder, file, String(BLOCK)], {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const peer: Peer = {
    lastHash: '',
    async time(algorithm) {
      child.stdin.write(`${algorithm}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error('the Python process ended early');
      const [time, last] = value.split(' ');
      peer.lastHash = last;
      return Number(time);
    },
    close() {
      child.stdin.end();
      rmSync(temporary, { recursive: true });
    },
  };
  return peer;
}

function timed(work: () => unknown, blocks: number): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / blocks;
}

const sha = await createSHA256();
const xxh3 = await createXXHash3();
const xxh128 = await createXXHash128();
const none = { sha: noneHash('sha256_cbor', '0'), xxh: noneHash('xxhash_cbor', '0') };
const hashWasm = (hasher: typeof sha) => (message: Uint8Array) => hasher.init().update(message).digest('binary');

/** Mooncake's sequence hashes with hash-wasm; the last one. */
function naiveSequence(): Uint8Array {
  const bytes = new Uint8Array(tokens.buffer);
  const pair = new Uint8Array(16);
  let before: Uint8Array | undefined;
  for (let at = 0; at < bytes.length; at += 4 * BLOCK) {
    let hash = xxh3
      .init()
      .update(bytes.subarray(at, at + 4 * BLOCK))
      .digest('binary');
    if (before) {
      pair.set(before.reverse(), 0);
      pair.set(hash.reverse(), 8);
      hash = xxh3.init().update(pair).digest('binary');
    }
    before = hash;
  }
  return before!;
}

/** What runs in this process, in blocks a run. */
const local: Record<string, [work: () => unknown, blocks: number]> = {
  'node:crypto sha256_cbor': [() => cborChain(none.sha, (m) => createHash('sha256').update(m).digest()), BLOCKS],
  'hash-wasm sha256_cbor': [() => cborChain(none.sha, hashWasm(sha)), BLOCKS],
  'hash-wasm xxhash_cbor': [() => cborChain(none.xxh, hashWasm(xxh128)), BLOCKS],
  'hash-wasm sequence': [naiveSequence, BLOCKS],
  sequence: [() => sequenceHashes(tokens, { blockSize: BLOCK }), BLOCKS],
};
for (const algorithm of ALGORITHMS) {
  local[`one ${algorithm}`] = [() => blockHashes(tokens, options(algorithm)), BLOCKS];
  local[`four ${algorithm}`] = [() => blockHashesBatch(prompts, options(algorithm)), PROMPTS * BLOCKS];
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const last = (algorithm: HashAlgorithm) => blockHashes(tokens, options(algorithm)).hex(BLOCKS - 1);

function agree(what: string, theirs: string, ours: string): void {
  if (theirs !== ours) throw new Error(`${what} gives ${theirs}, ours ${ours}`);
}

agree('node:crypto', hex(local['node:crypto sha256_cbor'][0]() as Uint8Array), last('sha256_cbor'));
agree('hash-wasm', hex(local['hash-wasm sha256_cbor'][0]() as Uint8Array), last('sha256_cbor'));
agree('hash-wasm', hex(local['hash-wasm xxhash_cbor'][0]() as Uint8Array), last('xxhash_cbor'));
agree('hash-wasm', hex(naiveSequence()), sequenceHashes(tokens, { blockSize: BLOCK }).hex(BLOCKS - 1));

const python = await vllm();
const times: Record<string, number[]> = {};
for (let round = -1; round < ROUNDS; round++) {
  for (const [name, [work, blocks]] of Object.entries(local)) {
    const time = timed(work, blocks);
    if (round >= 0) (times[name] ??= []).push(time);
  }
  for (const algorithm of python ? ALGORITHMS : []) {
    const time = await python!.time(algorithm);
    if (round >= 0) (times[`vllm ${algorithm}`] ??= []).push(time);
    else agree('vLLM', python!.lastHash, last(algorithm));
  }
}
python?.close();

const of = (name: string) => (times[name] ? median(times[name]) : undefined);
const row = (name: string, value: string, peer: string) =>
  report(
    { name: `hash/${name}`, value: of(value)!, unit: 'ns/block', baseline: of(`${peer}`), peer: peer.split(' ')[0] },
    'lower',
  );

for (const algorithm of ALGORITHMS) {
  row(`${algorithm}/one prompt`, `one ${algorithm}`, `vllm ${algorithm}`);
  row(`${algorithm}/four prompts`, `four ${algorithm}`, `vllm ${algorithm}`);
}
row('sha256_cbor/one prompt/node:crypto', 'one sha256_cbor', 'node:crypto sha256_cbor');
row('sha256_cbor/one prompt/hash-wasm', 'one sha256_cbor', 'hash-wasm sha256_cbor');
row('xxhash_cbor/one prompt/hash-wasm', 'one xxhash_cbor', 'hash-wasm xxhash_cbor');
const perSecond = (time: number) => (BLOCK * 1000) / time;
report(
  {
    name: 'hash/sequence',
    value: perSecond(of('sequence')!),
    unit: 'Mtokens/s',
    baseline: perSecond(of('hash-wasm sequence')!),
    peer: 'hash-wasm',
  },
  'higher',
);
