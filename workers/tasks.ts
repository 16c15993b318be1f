/**
 * What a worker can do, as pure functions from payload to payload: the same on both doors and on the calling thread. The
 * requests that src/pool/pool.ts builds are described by the `Rest` types here.
 */
import type { HashWidth } from '../src/core/block-hashes.js';
import { hashBatchInto, hashInto, readyPrompt } from '../src/core/hash/into.js';
import { type HashExports, hashPlan } from '../src/core/hash/plan.js';
import type { HashOptions, Prompt, Tokens } from '../src/core/hash.js';
import { KvLayout } from '../src/core/layout.js';
import { type PlanOptions, type TransferBlocks, TransferPlan } from '../src/core/layout-plan.js';
import type { KeyWidth } from '../src/core/prefix-keys.js';
import type { PrefixMatch } from '../src/core/prefix-match.js';
import { scratch } from '../src/core/wasm.js';
import type { Payload, TaskKind, TypedArray } from '../src/pool/wire.js';
import type { Matcher } from './patience.js';

const LIMIT = 2 ** 32;

/** The part of a prompt that is not its tokens; tokens too where they are no typed array. */
export interface PromptRest extends Omit<Prompt, 'tokens'> {
  tokens?: readonly number[];
  /** The caller's list has the tokens themselves in this place, not an object. */
  bare: boolean;
}

export interface HashRest {
  options: HashOptions;
  /** One for each prompt; undefined: all are bare, and the payload's arrays are their tokens. */
  prompts?: PromptRest[];
  /** Index of the first prompt in the caller's list; undefined: a call with one prompt, not a list. */
  first?: number;
}

export interface HashDone {
  width: HashWidth;
  /** Hashes of each prompt. */
  counts: number[];
}

export interface MatchRest {
  /** Bytes of a hash of each chain; 0: they are keys of the index, as they lie. */
  widths: (KeyWidth | 0)[];
  group?: number;
}

export interface HashAndMatchRest extends HashRest {
  group?: number;
  /** Whether the hashes are wanted too. */
  hashes: boolean;
}

export interface PlanRest {
  /** The layouts, as JSON. */
  source: string;
  destination: string;
  plan: PlanOptions;
  /** What is no typed array; the lists that are follow each other in the payload's arrays, by name in `bulk`. */
  blocks: Partial<TransferBlocks>;
  bulk: (keyof TransferBlocks)[];
}

/** Hashes the prompts of a payload on the scratch instance, one prompt after another from `ptr`. */
function hashAll({ arrays, rest }: Payload) {
  const { options, prompts, first } = rest as HashRest;
  const plan = hashPlan(options);
  let next = 0;
  const whole = prompts?.map((own) => ({ ...own, tokens: own.tokens ?? (arrays[next++] as Tokens) }));
  const ready = (whole ?? arrays.map((array) => ({ tokens: array as Tokens, bare: true }))).map((prompt, i) => {
    if (first === undefined) return readyPrompt('tokens', '', prompt, plan);
    const name = `prompts[${first + i}]`;
    return readyPrompt(prompt.bare ? name : `${name}.tokens`, `${name}.`, prompt, plan);
  });
  const core = scratch<HashExports>();
  if (ready.length === 1) {
    const { ptr, count } = hashInto(core, core.heap, LIMIT, ready[0], plan);
    return { core, ptr, counts: [count], plan };
  }
  return { core, ...hashBatchInto(core, core.heap, LIMIT, ready, plan), plan };
}

/** One array with the hashes of all prompts. */
function hash(payload: Payload): Payload {
  const { core, ptr, counts, plan } = hashAll(payload);
  const end = counts.reduce((at, count) => at + count * plan.width, ptr);
  return { arrays: [core.u8.subarray(ptr, end)], rest: { width: plan.width, counts } satisfies HashDone };
}

/** Chains of hashes against the index. One array: for each, `matched`, the number of its row words, the words. */
function match({ arrays, rest }: Payload, context: TaskContext, lane: number): Payload {
  const { widths, group } = rest as MatchRest;
  const matcher = context.matcher(lane);
  const found = arrays.map((array, i) => {
    const width = widths[i];
    const bytes = array as Uint8Array;
    return matcher.match(width === 0 ? bytes : { bytes, width, length: bytes.length / width }, { group });
  });
  return { arrays: [packMatches(found)], rest: undefined };
}

/** Both: the matches, then the hashes if they are wanted. */
function hashAndMatch(payload: Payload, context: TaskContext, lane: number): Payload {
  const { group, hashes } = payload.rest as HashAndMatchRest;
  const matcher = context.matcher(lane);
  const { core, ptr, counts, plan } = hashAll(payload);
  const { width } = plan;
  let at = ptr;
  const found = counts.map((length) => {
    const bytes = core.u8.subarray(at, (at += length * width));
    return matcher.match({ bytes, width, length }, { group });
  });
  const arrays: TypedArray[] = [packMatches(found)];
  if (hashes) arrays.push(core.u8.subarray(ptr, at));
  return { arrays, rest: { width, counts } satisfies HashDone };
}

function packMatches(matches: readonly PrefixMatch[]): Uint32Array {
  const packed = new Uint32Array(matches.reduce((words, { rows }) => words + 2 + rows.length, 0));
  let at = 0;
  for (const { matched, rows } of matches) {
    packed[at] = matched;
    packed[at + 1] = rows.length;
    packed.set(rows, at + 2);
    at += 2 + rows.length;
  }
  return packed;
}

function plan({ arrays, rest }: Payload, context: TaskContext): Payload {
  const { source, destination, plan, blocks, bulk } = rest as PlanRest;
  const lists = Object.fromEntries(bulk.map((name, i) => [name, arrays[i]]));
  const { bytes } = context.transfer(source, destination, plan).describe({ ...blocks, ...lists } as TransferBlocks);
  return { arrays: [bytes], rest: undefined };
}

/** Layouts and plans that a thread keeps; all are dropped when there are more. */
const KEPT = 256;

/** What tasks keep between calls. */
export class TaskContext {
  /** The matcher for batches of a lane. */
  readonly matcher: (lane: number) => Matcher;
  readonly #layouts = new Map<string, { id: number; layout: KvLayout }>();
  readonly #plans = new Map<string, TransferPlan>();

  constructor(matcher: (lane: number) => Matcher) {
    this.matcher = matcher;
  }

  /** The plan between two layouts given as JSON. */
  transfer(sourceText: string, destinationText: string, options: PlanOptions): TransferPlan {
    const source = this.#layout(sourceText);
    const destination = this.#layout(destinationText);
    const key = `${source.id} ${destination.id} ${JSON.stringify(options)}`;
    let plan = this.#plans.get(key);
    if (!plan) {
      if (this.#plans.size === KEPT) this.#plans.clear();
      plan = new TransferPlan(source.layout, destination.layout, options);
      this.#plans.set(key, plan);
    }
    return plan;
  }

  #layout(text: string): { id: number; layout: KvLayout } {
    let known = this.#layouts.get(text);
    if (!known) {
      if (this.#layouts.size === KEPT) {
        this.#layouts.clear();
        this.#plans.clear();
      }
      known = { id: this.#layouts.size, layout: new KvLayout(JSON.parse(text)) };
      this.#layouts.set(text, known);
    }
    return known;
  }
}

/**
 * Arrays of the answer may lie in the core's memory, where they last until the next task: the caller copies them.
 */
export const tasks: Record<TaskKind, (payload: Payload, context: TaskContext, lane: number) => Payload> = {
  hash,
  match,
  hashAndMatch,
  plan,
};
