/**
 * Which lane a request goes to. `round_robin` takes turns; `least_loaded` takes the one with the fewest prompt blocks ahead;
 * `prefix_aware` weighs what a lane need not compute against what it has ahead (core/choose.ts), by what was routed where:
 * an engine that evicts early has less than it is credited with, which costs time and no more.
 */

import type { BlockHashes } from '../core/block-hashes.js';
import { chooseInstance, NO_OVERLAP } from '../core/choose.js';
import { MooncakeError } from '../core/errors.js';
import { digest, sequenceHashes } from '../core/hash.js';
import { PrefixIndex } from '../core/prefix.js';
import type { Lane, Role } from './instance.js';

export const SCHEDULING = ['round_robin', 'least_loaded', 'prefix_aware'] as const;
export type Scheduling = (typeof SCHEDULING)[number];

/** Unit of prefixes and of load, in tokens. Engines with larger blocks are credited with up to one of theirs too much. */
export const BLOCK = 16;

/** What the choice knows of a prompt. */
export interface Prompt {
  /** Estimated or known length in blocks. */
  readonly blocks: number;
  /** Its block hashes; undefined where its tokens are not known. */
  readonly hashes: BlockHashes | undefined;
}

export interface Chosen {
  readonly lane: Lane;
  /** By what: the policy, or what it fell back to. */
  readonly by: Scheduling;
  /** Blocks of the prompt that the lane is credited with. */
  readonly overlap: number;
}

const INDEX_BYTES = 256 * 2 ** 20;
/** Of a full index, or of what a lane is credited with beyond its cache. */
const SHARE_DROPPED = 4;

export class Scheduler {
  readonly #policy: Scheduling;
  readonly #turns: Record<Role, number> = { prefill: 0, decode: 0 };
  readonly #index: PrefixIndex | undefined;
  /** Blocks that each lane is credited with. */
  readonly #held = new Map<string, number>();

  constructor(policy: Scheduling) {
    this.#policy = policy;
    if (policy === 'prefix_aware') this.#index = new PrefixIndex({ keyWidth: 8, maxBytes: INDEX_BYTES });
  }

  get wantsTokens(): boolean {
    return this.#index !== undefined;
  }

  /** Hashes by which prefixes are compared; prompts of different models or cache salts share none. */
  hashes(tokens: Uint32Array, model: string, salt: string): BlockHashes {
    const parent = digest('xxh3-64', Buffer.from(JSON.stringify([model, salt])));
    return sequenceHashes(tokens, { blockSize: BLOCK, parent });
  }

  /** Undefined where there is no lane. */
  choose(role: Role, lanes: readonly Lane[], prompt: Prompt): Chosen | undefined {
    if (lanes.length === 0) return undefined;
    const cursor = this.#turns[role]++ % lanes.length;
    if (this.#policy === 'round_robin') return { lane: lanes[cursor], by: 'round_robin', overlap: 0 };
    const hasPrefix = role === 'prefill' && this.#index !== undefined && prompt.hashes !== undefined;
    const match = hasPrefix ? this.#index!.match(prompt.hashes!) : NO_OVERLAP;
    const { instance, overlap } = chooseInstance(match, {
      instances: lanes.map(({ name }) => name),
      blocks: prompt.blocks,
      load: lanes.map(({ load }) => load),
      policy: 'cost',
      cursor,
    });
    return { lane: lanes[instance], by: hasPrefix ? 'prefix_aware' : 'least_loaded', overlap };
  }

  /** A lane has computed a prompt. */
  learn({ name, instance }: Lane, { hashes }: Prompt): void {
    if (this.#index === undefined || hashes === undefined || hashes.length === 0) return;
    this.#index.addInstance(name);
    let added: number;
    try {
      added = this.#index.insert(name, hashes);
    } catch (error) {
      if (!(error instanceof MooncakeError) || error.code !== 'ERR_OUT_OF_MEMORY') throw error;
      this.#drop(name, Math.ceil(this.#index.stats().held / SHARE_DROPPED));
      return;
    }
    const held = (this.#held.get(name) ?? 0) + added;
    this.#held.set(name, held);
    const { blocks, blockSize } = instance.settings ?? {};
    const room = blocks === undefined || blockSize === undefined ? Infinity : (blocks * blockSize) / BLOCK;
    if (held > room + room / SHARE_DROPPED) this.#drop(name, held - Math.floor(room));
  }

  /** Takes from a lane what it used longest ago. */
  #drop(name: string, limit: number): void {
    const removed = this.#index!.remove(name, this.#index!.evictionOrder({ instance: name, limit }));
    this.#held.set(name, Math.max(0, (this.#held.get(name) ?? 0) - removed));
  }

  /** A lane has lost all that it had, or is no more. */
  forget({ name }: Lane): void {
    this.#held.delete(name);
    if (this.#index?.instanceId(name) !== undefined) this.#index.removeInstance(name);
  }

  /** Blocks that the index knows. */
  get blocks(): number {
    return this.#index?.stats().blocks ?? 0;
  }
}
