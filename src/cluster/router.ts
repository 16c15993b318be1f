/**
 * The scheduler between the instances: which prefill instance has most of a prompt's prefix and least to do, and which
 * decode instance has least to do. It knows prefixes by what it has routed itself.
 */
import { InstanceChooser } from '../core/choose.js';
import { blockHashes, type HashOptions } from '../core/hash.js';
import { PrefixIndex } from '../core/prefix.js';
import type { Instance } from './instance.js';

export type Scheduling = 'prefix_aware' | 'round_robin';

/** Work that an instance has ahead, in blocks; counted from the choice to `done`. */
class Pool {
  readonly instances: readonly Instance[];
  readonly load: Float64Array;
  turn = 0;

  constructor(instances: readonly Instance[]) {
    this.instances = instances;
    this.load = new Float64Array(instances.length);
    for (const [i, { gone }] of instances.entries()) {
      gone.then(() => {
        this.load[i] = Number.POSITIVE_INFINITY;
      });
    }
  }

  /** The next live instance in turn, or undefined. */
  next(without: ReadonlySet<Instance>): number | undefined {
    for (let step = 0; step < this.instances.length; step++) {
      const i = (this.turn + step) % this.instances.length;
      if (this.load[i] === Number.POSITIVE_INFINITY || without.has(this.instances[i])) continue;
      this.turn = i + 1;
      return i;
    }
    return undefined;
  }
}

/** A chosen instance, to be released when its work is done. */
export interface Assignment {
  readonly instance: Instance;
  /** `ran`: the instance has the prompt's blocks now. */
  done(ran: boolean): void;
}

export class Router {
  readonly #prefill: Pool;
  readonly #decode: Pool;
  readonly #index = new PrefixIndex();
  /** Undefined where there is no prefill instance to choose. */
  readonly #chooser: InstanceChooser | undefined;
  readonly #hash: HashOptions;
  readonly #scheduling: Scheduling;

  constructor(instances: readonly Instance[], hash: HashOptions, scheduling: Scheduling) {
    this.#prefill = new Pool(instances.filter(({ role }) => role === 'prefill'));
    this.#decode = new Pool(instances.filter(({ role }) => role === 'decode'));
    const names = this.#prefill.instances.map(({ name }) => name);
    for (const name of names) this.#index.addInstance(name);
    if (names.length > 0) this.#chooser = new InstanceChooser(names);
    this.#hash = hash;
    this.#scheduling = scheduling;
  }

  /** A prefill instance for the prompt, not one of `without`; undefined when none is left. */
  prefill(tokens: Uint32Array, without: ReadonlySet<Instance> = new Set()): Assignment | undefined {
    const [pool, chooser] = [this.#prefill, this.#chooser];
    if (chooser === undefined) return undefined;
    const hashes = blockHashes(tokens, this.#hash);
    const at =
      this.#scheduling === 'round_robin'
        ? pool.next(without)
        : choose(pool, without, (load) => {
            const match = this.#index.match(hashes);
            return chooser.choose(match, { blocks: hashes.length, load }).instance;
          });
    if (at === undefined) return undefined;
    return assign(pool, at, hashes.length, () => this.#index.insert(pool.instances[at].name, hashes));
  }

  decode(blocks: number, without: ReadonlySet<Instance> = new Set()): Assignment | undefined {
    const pool = this.#decode;
    const at =
      this.#scheduling === 'round_robin'
        ? pool.next(without)
        : choose(pool, without, (load) => load.indexOf(load.reduce((least, value) => Math.min(least, value))));
    return at === undefined ? undefined : assign(pool, at, blocks, () => {});
  }
}

function choose(pool: Pool, without: ReadonlySet<Instance>, pick: (load: Float64Array) => number): number | undefined {
  const load = pool.load.map((value, i) => (without.has(pool.instances[i]) ? Number.POSITIVE_INFINITY : value));
  return load.every((value) => value === Number.POSITIVE_INFINITY) ? undefined : pick(load);
}

function assign(pool: Pool, at: number, blocks: number, learn: () => void): Assignment {
  pool.load[at] += blocks;
  return {
    instance: pool.instances[at],
    done(ran) {
      // What is gone stays infinite.
      pool.load[at] -= blocks;
      if (ran) learn();
    },
  };
}
