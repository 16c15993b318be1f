/**
 * Hashing into a memory that someone else owns: an index's, or one that workers share. What a call needs lies in the
 * area the caller gives, hashes first, so that matching reads them where they are:
 *
 *   at │ hashes │ parents │ jobs │ state and message buffers │ extra keys │ tokens │ limit
 *
 * A batch goes in one call (chains side by side in the lanes). A single prompt whose tokens do not fit is hashed in
 * chunks, each continuing the chain.
 */
import { errors } from '../errors.js';
import type { Core } from '../wasm.js';
import { type HashExports, type HashPlan, parentOf } from './plan.js';
import { copyTokens, type HeldTokens, holdTokens, type Tokens } from './tokens.js';
import type { ExtraKey } from './values.js';
import { Writer } from './writer.js';

/** Sizes of assembly/hash/chain.ts and encode.ts. */
const JOB_SIZE = 20;
const STATE_SIZE = 512;
const HEAD_ROOM = 64;
const TOKEN_ROOM = 7;
const TAIL_ROOM = 96;
/** Bytes of tokens hashed by one call of a single chain: few enough to be still in the cache when they are hashed. */
export const CHUNK = 1 << 17;

/** Extra keys of a prompt: one entry per block, null for none. Missing entries are null. */
export type ExtraKeys = readonly (readonly ExtraKey[] | null)[];

export interface Prompt {
  tokens: Tokens;
  /** Hash of the block before the first, bytes or hex. Default: NONE_HASH. */
  parent?: Uint8Array | string | null;
  extraKeys?: ExtraKeys | null;
}

/** A prompt checked: what is left to do is copy and hash. */
export interface ReadyPrompt {
  argument: string;
  tokens: HeldTokens;
  blocks: number;
  parent: Uint8Array;
  extras: EncodedExtras | undefined;
}

interface EncodedExtras {
  bytes: Uint8Array;
  /** Start and end in `bytes`, for each block. */
  bounds: Uint32Array;
  longest: number;
}

function encodeExtras(
  argument: string,
  keys: ExtraKeys | null | undefined,
  blocks: number,
  plan: HashPlan,
): EncodedExtras | undefined {
  if (keys === undefined || keys === null) return undefined;
  if (!Array.isArray(keys)) throw errors.invalidArgument(argument, keys, 'an array with one entry per block, or null');
  if (keys.length > blocks) {
    throw errors.invalidArgument(argument, keys, `one entry per full block (${blocks})`);
  }
  const out = new Writer();
  const bounds = new Uint32Array(2 * blocks);
  let longest = 0;
  // A LoRA request repeats one list for every block: the same object is encoded once.
  let last: readonly ExtraKey[] | undefined;
  let [from, to] = [0, 0];
  for (let i = 0; i < keys.length; i++) {
    const entry = keys[i];
    if (entry === null || entry === undefined) continue;
    if (!Array.isArray(entry)) throw errors.invalidArgument(`${argument}[${i}]`, entry, 'a list or null');
    if (entry !== last) {
      from = out.length;
      plan.serializer.extraKeys(out, `${argument}[${i}]`, entry);
      to = out.length;
      last = entry;
    }
    bounds[2 * i] = from;
    bounds[2 * i + 1] = to;
    longest = Math.max(longest, to - from);
  }
  return longest === 0 ? undefined : { bytes: out.bytes, bounds, longest };
}

/** Checks a prompt. `argument` is its name in errors, `fields` the prefix of its fields' names. */
export function readyPrompt(argument: string, fields: string, prompt: Prompt, plan: HashPlan): ReadyPrompt {
  const tokens = holdTokens(argument, prompt.tokens, plan.blockSize);
  const blocks = Math.floor(tokens.length / plan.blockSize);
  return {
    argument,
    tokens,
    blocks,
    parent: parentOf(`${fields}parent`, prompt.parent, plan),
    extras: encodeExtras(`${fields}extraKeys`, prompt.extraKeys, blocks, plan),
  };
}

// Addresses reach 2^32, beyond JavaScript's bit operators.
const up = (address: number) => Math.ceil(address / 16) * 16;

/** Where a call's parts lie. */
function layOut(at: number, prompts: readonly ReadyPrompt[], plan: HashPlan) {
  let [blocks, extraBytes, longest] = [0, 0, 0];
  for (const { blocks: own, extras } of prompts) {
    blocks += own;
    if (!extras) continue;
    extraBytes += extras.bytes.length + 4 * extras.bounds.length + 16;
    longest = Math.max(longest, extras.longest);
  }
  const hashes = up(at);
  const parents = up(hashes + blocks * plan.width);
  const jobs = parents + prompts.length * plan.width;
  const state = up(jobs + prompts.length * JOB_SIZE);
  const stride = up(HEAD_ROOM + plan.blockSize * TOKEN_ROOM + longest + TAIL_ROOM);
  const extras = state + STATE_SIZE + 4 * stride;
  const tokens = up(extras + extraBytes);
  return { hashes, parents, jobs, state, stride, extras, tokens, blocks };
}

function reserve(core: Core<HashExports>, end: number, limit: number): void {
  if (end > limit) throw errors.outOfMemory('tokens', end);
  core.reserve(end, 'tokens');
}

/** Copies encoded extra keys to `at`; the address of their bounds, made absolute, and the first free address behind. */
function placeExtras(
  core: Core<HashExports>,
  at: number,
  { bytes, bounds }: EncodedExtras,
): { table: number; end: number } {
  const { u32, u8 } = core;
  const base = at + 4 * bounds.length;
  for (let i = 0; i < bounds.length; i++) u32[at / 4 + i] = base + bounds[i];
  u8.set(bytes, base);
  return { table: at, end: up(base + bytes.length) };
}

function run(
  core: Core<HashExports>,
  jobs: number,
  count: number,
  plan: HashPlan,
  state: number,
  stride: number,
): void {
  const { digest, form, blockSize } = plan;
  if (core.exports.hashChains(jobs, count, digest, form, blockSize, state, stride) !== 0) {
    throw errors.notSupported(
      'blocks whose pickle takes 64 KiB or more',
      'use a CBOR algorithm, or smaller blocks and extra keys',
    );
  }
}

/**
 * Hashes one prompt in `core`'s memory, between the addresses `at` and `limit`; grows the memory where it ends earlier.
 * Returns the address of its hashes, `plan.width` bytes each, and their number.
 */
export function hashInto(
  core: Core<HashExports>,
  at: number,
  limit: number,
  prompt: ReadyPrompt,
  plan: HashPlan,
): { ptr: number; count: number } {
  const place = layOut(at, [prompt], plan);
  const { blocks, tokens, argument, extras } = prompt;
  const { width, blockSize } = plan;
  const bytes = 4 * blockSize;
  const chunk = Math.min(blocks, Math.max(1, Math.floor(Math.min(CHUNK, limit - place.tokens) / bytes)));
  reserve(core, place.tokens + chunk * bytes, limit);
  core.u8.set(prompt.parent, place.parents);
  const table = extras ? placeExtras(core, place.extras, extras).table : 0;
  for (let done = 0; done < blocks; done += chunk) {
    const count = Math.min(chunk, blocks - done);
    copyTokens(core, argument, tokens, done * blockSize, (done + count) * blockSize, place.tokens);
    const out = place.hashes + done * width;
    const parent = done === 0 ? place.parents : out - width;
    core.u32.set([place.tokens, count, out, parent, table && table + 8 * done], place.jobs / 4);
    run(core, place.jobs, 1, plan, place.state, place.stride);
  }
  return { ptr: place.hashes, count: blocks };
}

/** The same for many prompts in one call. Their hashes lie one prompt after another from `ptr`. */
export function hashBatchInto(
  core: Core<HashExports>,
  at: number,
  limit: number,
  prompts: readonly ReadyPrompt[],
  plan: HashPlan,
): { ptr: number; counts: number[] } {
  const place = layOut(at, prompts, plan);
  const { width, blockSize } = plan;
  reserve(core, place.tokens + 4 * blockSize * place.blocks, limit);
  let [out, tokens, extrasAt] = [place.hashes, place.tokens, place.extras];
  for (const [i, prompt] of prompts.entries()) {
    const { blocks, argument, extras } = prompt;
    const parent = place.parents + i * width;
    core.u8.set(prompt.parent, parent);
    copyTokens(core, argument, prompt.tokens, 0, blocks * blockSize, tokens);
    const extra = extras && placeExtras(core, extrasAt, extras);
    core.u32.set([tokens, blocks, out, parent, extra?.table ?? 0], (place.jobs + i * JOB_SIZE) / 4);
    extrasAt = extra?.end ?? extrasAt;
    out += blocks * width;
    tokens += 4 * blocks * blockSize;
  }
  run(core, place.jobs, prompts.length, plan, place.state, place.stride);
  return { ptr: place.hashes, counts: prompts.map((prompt) => prompt.blocks) };
}
