/** The answer to one query: how many leading blocks each instance has. */
import { integer, oneOf } from './check.js';

export type Tier = 'gpu' | 'cpu' | 'disk';
export const TIERS = ['gpu', 'cpu', 'disk'] as const;
/** Rows of a result: gpu, cpu, disk, any. */
export const COLUMNS = ['gpu', 'cpu', 'disk', 'any'] as const;

/** Leading blocks of one instance: on each tier alone, and on any mixture of its tiers. */
export interface InstancePrefix {
  instance: number;
  /** Name of the instance; undefined in a reader whose handle was made before the instance was added. */
  name: string | undefined;
  gpu: number;
  cpu: number;
  disk: number;
  any: number;
}

export class PrefixMatch {
  /** Number of leading blocks that anyone holds, whoever it is: what a pool shared by all instances could serve. */
  readonly matched: number;
  /** True when only the low 64 bits of wider hashes were compared (an index of 8-byte keys). */
  readonly approximate: boolean;
  readonly #rows: Uint32Array;
  readonly #names: readonly (string | undefined)[];

  /** `rows`: four lengths (COLUMNS) for each instance id. */
  constructor(matched: number, approximate: boolean, rows: Uint32Array, names: readonly (string | undefined)[]) {
    this.matched = matched;
    this.approximate = approximate;
    this.#rows = rows;
    this.#names = names;
  }

  /** Four lengths for each instance id, in the order gpu, cpu, disk, any. */
  get rows(): Uint32Array {
    return this.#rows;
  }

  /**
   * Leading blocks that an instance, by id or name, has on a tier; on any mixture of its tiers by default. An instance
   * that the index did not have at that moment has none.
   */
  length(instance: number | string, tier: Tier | 'any' = 'any'): number {
    const column = COLUMNS.indexOf(oneOf('tier', tier, COLUMNS));
    const id =
      typeof instance === 'string'
        ? this.#names.indexOf(instance)
        : integer('instance', instance, 0, Number.MAX_SAFE_INTEGER);
    return id < 0 ? 0 : (this.#rows[4 * id + column] ?? 0);
  }

  /** The instances that have at least one leading block, by id. */
  entries(): InstancePrefix[] {
    const found: InstancePrefix[] = [];
    const rows = this.#rows;
    for (let instance = 0; 4 * instance < rows.length; instance++) {
      const at = 4 * instance;
      const any = rows[at + 3];
      if (any === 0) continue;
      // Not by destructuring a subarray, which costs more than the match.
      found.push({ instance, name: this.#names[instance], gpu: rows[at], cpu: rows[at + 1], disk: rows[at + 2], any });
    }
    return found;
  }

  /** The instance with the longest prefix on a tier (any mixture by default), the lowest id of several; or undefined. */
  best(tier: Tier | 'any' = 'any'): InstancePrefix | undefined {
    oneOf('tier', tier, COLUMNS);
    let best: InstancePrefix | undefined;
    for (const entry of this.entries()) if (entry[tier] > (best?.[tier] ?? 0)) best = entry;
    return best;
  }
}
