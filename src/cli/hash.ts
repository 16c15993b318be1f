/**
 * `mooncake-ts hash`: JSON lines in, block hashes out, line by line: what one needs to see why two instances disagree on
 * a key. A line that cannot be hashed gives a line with its error, so that answers stay aligned with questions.
 */
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { options as optionsObject } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { hashPlan } from '../core/hash/plan.js';
import { type BlockHashOptions, blockHashes, type HashAlgorithm, noneHash, type Tokens } from '../core/hash.js';
import { toHex } from '../core/hex.js';
import { readLines } from '../lines.js';

type Line = { tokens: Tokens } & BlockHashOptions;

const FIELDS = ['tokens', 'blockSize', 'algorithm', 'seed', 'extraKeys', 'parent'];

const HELP = `
Reads JSON lines on stdin, for example
  {"tokens":[1,2,3,4],"blockSize":2,"algorithm":"sha256_cbor","seed":"0","extraKeys":null,"parent":null}
and prints for each
  {"hashes":["<hex>",…],"noneHash":"<hex>"}

  tokens     token ids; only full blocks are hashed
  blockSize  tokens in a block, 1 to 65536
  algorithm  sha256, sha256_cbor, xxhash or xxhash_cbor (vLLM's --prefix-caching-hash-algo)
  seed       PYTHONHASHSEED of the instances, a string; null: not set
  extraKeys  null, or one entry per block: null or a list, tuples as lists, bytes as {"bytes_hex":"00ff"}
  parent     hash in hex of the block before the first, or null

noneHash is null where a parent is given and vLLM would draw it at random (xxhash* without a seed).
A line that is wrong prints {"error":{"code","message","argument"}} in its place, and the exit code is 1.`;

/** A byte-order mark is dropped. */
const decoder = new TextDecoder('utf-8', { fatal: true });

function decode(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw errors.invalidArgument('line', bytes, 'UTF-8 text');
  }
}

function parse(text: string, defaults: Partial<BlockHashOptions>): Line {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw errors.invalidArgument('line', text, `JSON (${(cause as Error).message})`);
  }
  const line = optionsObject('line', value as Line);
  for (const field of Object.keys(line)) {
    if (!FIELDS.includes(field)) throw errors.invalidArgument('field', field, `one of ${FIELDS.join(', ')}`);
  }
  return { ...defaults, ...line };
}

function answer({ tokens, ...options }: Line) {
  const hashes = blockHashes(tokens, options).toHex();
  const undefinedNone = (options.seed ?? null) === null && options.algorithm?.startsWith('xxhash');
  return { hashes, noneHash: undefinedNone ? null : toHex(noneHash(options.algorithm, options.seed)) };
}

/** One answer for each line that is not blank. */
async function* answers(input: Readable, defaults: Partial<BlockHashOptions>): AsyncGenerator<string> {
  let number = 0;
  for await (const bytes of readLines(input)) {
    number++;
    try {
      const text = decode(bytes);
      if (text.trim() === '') continue;
      yield `${JSON.stringify(answer(parse(text, defaults)))}\n`;
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      const { code, message, argument } = error;
      process.stderr.write(`mooncake-ts hash: line ${number}: ${message} [${code}]\n`);
      process.exitCode = 1;
      yield `${JSON.stringify({ error: { code, message, argument } })}\n`;
    }
  }
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

export function addHash(root: Command): void {
  root
    .command('hash')
    .description("hash prompts as vLLM does, to see an instance's block keys")
    .option('-a, --algorithm <name>', 'algorithm of lines that name none', 'sha256_cbor')
    .option('-b, --block-size <tokens>', 'block size of lines that name none', wholeNumber, 16)
    .option('-s, --seed <text>', 'seed of lines that name none (PYTHONHASHSEED)')
    .option('--json', 'print JSON lines (always so)')
    .addHelpText('after', HELP)
    .action(async ({ algorithm, blockSize, seed }: { algorithm: HashAlgorithm; blockSize: number; seed?: string }) => {
      // Wrong defaults end the program before it waits for input.
      hashPlan({ algorithm, blockSize, seed });
      if (process.stdin.isTTY)
        process.stderr.write('reading JSON lines from the terminal (--help shows one); Ctrl-D ends\n');
      await pipeline(answers(process.stdin, { algorithm, blockSize, seed }), process.stdout, { end: false });
    });
}
