/**
 * Which instance serves a prompt: the one that recomputes least, unless it has too much to do already.
 *
 * Three policies. `best` takes an instance with the longest prefix; `half` does so only where that prefix is more than
 * half of the prompt (else it spreads the load: under `best` one hot prefix pulls everything to one instance); `cost`
 * weighs the blocks to recompute against the work that each instance has ahead of it, the cost of NVIDIA Dynamo's
 * router (dynamo-kv-router 1.6.1, scheduling/selector: prefill_load_scale * (prefill blocks - credited overlap) + decode
 * blocks, lowest wins). Ties go to the first candidate at or after a cursor that moves on with every choice, so equal
 * instances take turns and the same questions in the same order have the same answers.
 *
 * The answer says how far it can be trusted, in the three states that vLLM's router proposes (vllm-project/router #294).
 */
import { integer, oneOf, options as optionsOf } from './check.js';
import { errors } from './errors.js';

export type Policy = 'half' | 'best' | 'cost';

/**
 * exact: the prefix decided and is what the instance held when the index was written. degraded: it decided, but may be
 * wrong (keys compared by 64 bits, or an index that its owner calls stale). fallback: no prefix decided, only load and
 * turns.
 */
export type ChoiceState = 'exact' | 'degraded' | 'fallback';

/** Leading blocks of the prompt that one instance has: on each tier alone, and on any mixture of its tiers. */
export interface HeldPrefix {
  instance: number;
  name?: string;
  gpu: number;
  cpu: number;
  disk: number;
  any: number;
}

/** What a choice needs of a match: the answer of `PrefixIndex.match`. */
export interface Overlaps {
  /** Keys were compared by 64 bits only. */
  readonly approximate: boolean;
  /** The instances that have at least one leading block. */
  entries(): Iterable<HeldPrefix>;
}

/** The match of a prompt where there is no index. */
export const NO_OVERLAP: Overlaps = { approximate: false, entries: () => [] };

/** What a block on each tier saves of its recomputation, from 0 to 1. */
export interface TierCredits {
  gpu?: number;
  cpu?: number;
  disk?: number;
}

export interface ChooserOptions {
  /** Default: `cost` where a load is given, else `half`. */
  policy?: Policy;
  /**
   * Default {gpu: 1, cpu: 0.75, disk: 0.25}, as dynamo-kv-router 1.6.1 (scheduling/config.rs). A block counts by the best
   * tier whose own prefix reaches it; one that only a mixture of tiers reaches counts as on the cpu.
   */
  credits?: TierCredits;
  /** Policy `cost`: weight of a block to recompute against a block of load. 0 to 1e6, default 1; 0 balances load alone. */
  prefillWeight?: number;
}

/** What is known of one prompt beside its match. */
export interface ChoiceRequest {
  /** Full blocks of the prompt: the number of its hashes. */
  blocks: number;
  /**
   * For each instance the work it has ahead, in blocks: prompt blocks queued plus blocks of running requests. Infinity
   * takes an instance out (down, draining, full). Under `half` and `best` it decides between equal prefixes.
   */
  load?: ArrayLike<number>;
  /** The index may lag behind the instances; the choice is then never called exact. Default false. */
  stale?: boolean;
}

/**
 * The instances to choose from, 1 to 65,536: how many (those with the index's ids from 0 on), or their names in the
 * index, in the caller's order. One that the index does not know has nothing.
 */
export type Instances = number | readonly string[];

export interface ChooseOptions extends ChooserOptions, ChoiceRequest {
  instances: Instances;
  /** Where the search for a tie's winner starts. Default 0. */
  cursor?: number;
}

export interface Choice {
  /** Id or, where names were given, the place in their list. */
  instance: number;
  state: ChoiceState;
  /** Leading blocks of the prompt that the chosen instance has, on any mixture of its tiers. */
  overlap: number;
  /** The cursor for the next choice: the instance after this one. */
  cursor: number;
}

const MAX_INSTANCES = 65536;
const MAX_WEIGHT = 1e6;
const TIERS = ['gpu', 'cpu', 'disk'] as const;
const CREDITS = { gpu: 1, cpu: 0.75, disk: 0.25 };
const POLICIES = ['half', 'best', 'cost'] as const;

/** Checked options of a chooser. */
interface Rules {
  count: number;
  /** Place of an instance among the candidates, undefined for one that is none. */
  place(held: HeldPrefix): number | undefined;
  policy: Policy | undefined;
  credits: Required<TierCredits>;
  prefillWeight: number;
}

function amount(argument: string, value: unknown, max: number): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= max)) {
    throw errors.invalidArgument(argument, value, `a number from 0 to ${max}`);
  }
  return value;
}

function places(instances: Instances): Pick<Rules, 'count' | 'place'> {
  if (!Array.isArray(instances)) {
    return { count: integer('instances', instances, 1, MAX_INSTANCES), place: ({ instance }) => instance };
  }
  const ids = new Map<unknown, number>();
  for (const [id, name] of instances.entries()) {
    if (typeof name !== 'string' || ids.has(name)) {
      throw errors.invalidArgument(`instances[${id}]`, name, 'a string that no other instance is named');
    }
    ids.set(name, id);
  }
  integer('instances.length', ids.size, 1, MAX_INSTANCES);
  return { count: ids.size, place: ({ name }) => ids.get(name) };
}

function rulesOf(instances: Instances, { policy, credits, prefillWeight }: ChooserOptions): Rules {
  const given = optionsOf('credits', credits);
  const [gpu, cpu, disk] = TIERS.map((tier) => amount(`credits.${tier}`, given[tier] ?? CREDITS[tier], 1));
  return {
    ...places(instances),
    policy: policy === undefined ? undefined : oneOf('policy', policy, POLICIES),
    credits: { gpu, cpu, disk },
    prefillWeight: amount('prefillWeight', prefillWeight ?? 1, MAX_WEIGHT),
  };
}

function checkLoad(load: ArrayLike<number>, count: number): ArrayLike<number> {
  if (typeof load !== 'object' || load === null || load.length !== count) {
    throw errors.invalidArgument('load', load, `an array of ${count} numbers, one for each instance`);
  }
  for (let i = 0; i < count; i++) {
    if (typeof load[i] !== 'number' || !(load[i] >= 0))
      throw errors.invalidArgument(`load[${i}]`, load[i], 'a number from 0 to Infinity');
  }
  return load;
}

/** Blocks that need not be recomputed, by the credits. */
function savedBy({ gpu, cpu, disk, any }: HeldPrefix, credits: Required<TierCredits>): number {
  const onCpu = Math.max(gpu, cpu);
  const onDisk = Math.max(onCpu, disk);
  const mixed = Math.max(onDisk, any);
  return gpu * credits.gpu + (onCpu - gpu + mixed - onDisk) * credits.cpu + (onDisk - onCpu) * credits.disk;
}

function choose(match: Overlaps, request: ChoiceRequest, rules: Rules, cursor: number): Choice {
  if (typeof match !== 'object' || match === null || typeof match.entries !== 'function' || Array.isArray(match)) {
    throw errors.invalidArgument('match', match, 'the answer of PrefixIndex.match');
  }
  const { count, credits, prefillWeight } = rules;
  const blocks = integer('blocks', request.blocks, 0, Number.MAX_SAFE_INTEGER);
  const load = request.load === undefined ? undefined : checkLoad(request.load, count);
  const policy = rules.policy ?? (load ? 'cost' : 'half');

  const saved = new Float64Array(count);
  const overlap = new Float64Array(count);
  let best = 0;
  for (const held of match.entries()) {
    const id = rules.place(held);
    if (id === undefined || id >= count || load?.[id] === Number.POSITIVE_INFINITY) continue;
    saved[id] = savedBy(held, credits);
    // Not so where the place is none or a length no number.
    if (!(saved[id] >= 0)) throw errors.invalidArgument('match', match, 'of whole places and lengths from 0');
    overlap[id] = held.any;
    best = Math.max(best, saved[id]);
  }
  const spread = best === 0 || (policy === 'half' && best * 2 <= blocks);
  let instance = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let step = 0, id = cursor; step < count; step++, id = id + 1 < count ? id + 1 : 0) {
    if (policy !== 'cost' && !spread && saved[id] < best) continue;
    const cost = (policy === 'cost' ? prefillWeight * (blocks - saved[id]) : 0) + (load?.[id] ?? 0);
    if (cost < least) {
      least = cost;
      instance = id;
    }
  }
  if (instance < 0) throw errors.noInstance(count);
  return {
    instance,
    state: spread || overlap[instance] === 0 ? 'fallback' : match.approximate || request.stale ? 'degraded' : 'exact',
    overlap: overlap[instance],
    cursor: (instance + 1) % count,
  };
}

/**
 * Chooses an instance for a prompt.
 *
 * @throws ERR_NO_INSTANCE when every load is Infinity
 */
export function chooseInstance(match: Overlaps, options: ChooseOptions): Choice {
  const given = optionsOf('options', options);
  const rules = rulesOf(given.instances, given);
  return choose(match, given, rules, integer('cursor', given.cursor ?? 0, 0, rules.count - 1));
}

/** `chooseInstance` with its cursor and policy kept: one for each set of equal instances. */
export class InstanceChooser {
  readonly #rules: Rules;
  #cursor = 0;

  constructor(instances: Instances, options?: ChooserOptions) {
    this.#rules = rulesOf(instances, optionsOf('options', options));
  }

  choose(match: Overlaps, request: ChoiceRequest): Choice {
    const choice = choose(match, optionsOf('request', request), this.#rules, this.#cursor);
    this.#cursor = choice.cursor;
    return choice;
  }
}
