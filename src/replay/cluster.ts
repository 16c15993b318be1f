/**
 * The cluster of the agentic benchmark (agentic.ts): prefill instances with a cache in GPU memory each, and the pool in
 * the segments of all GPUs. Blocks are slots: the common instructions first, then each session's own in a row.
 */
import { AllocatorSet } from '../core/alloc.js';
import { errors } from '../core/errors.js';
import { PrefixIndex } from '../core/prefix.js';
import { lru } from '../eviction/lru.js';
import { POLICIES } from '../eviction/registry.js';
import type { AgenticOptions } from './agentic.js';
import { writeHash } from './hash.js';
import { countedRoom, type Room, Tier } from './tier.js';
import type { Turn } from './workload.js';

export interface ClusterOptions extends AgenticOptions {
  /** Prefill instances. */
  instances: number;
  /** All sessions. */
  sessions: number;
}

export interface ClusterFigures {
  prefillInstances: number;
  promptTokens: number;
  /** Prompt tokens found in the pool or in the instance's own GPU memory, and their share of all. */
  hitTokens: number;
  hitRate: number;
  /**
   * The same from GPU memory alone, which is all there is without the pool: GPU memory holds the same blocks either way,
   * because a prompt's blocks are there once it is prefilled, whether computed or loaded.
   */
  localHitTokens: number;
  localHitRate: number;
  /** Bytes of all instances' GPU memory and of all segments. */
  localCapacity: number;
  poolCapacity: number;
  localEvictions: number;
  poolEvictions: number;
  /** Objects in the pool at the end, and their bytes. */
  poolObjects: number;
  poolBytes: number;
}

const GB = 1e9;
/** Blocks that the caches together may tell apart: 13 bytes each. */
const MAX_SLOTS = 2 ** 27;

/** Objects of one size in the segments of a cluster, placed in turn; once all are full, where one was freed. */
class SegmentRoom implements Room {
  readonly capacity: number;
  readonly #allocators: AllocatorSet;
  readonly #segments: Uint32Array;
  readonly #bytes: number;
  readonly #handles: Float64Array;
  readonly #segmentOf: Uint16Array;
  readonly #freed: number[] = [];
  #next = 0;
  #full = false;

  constructor(segments: number, length: number, bytes: number, slots: number) {
    this.capacity = segments * length;
    this.#allocators = new AllocatorSet({ maxSegments: segments });
    this.#segments = Uint32Array.from({ length: segments }, () => this.#allocators.addSegment({ length }));
    this.#bytes = bytes;
    this.#handles = new Float64Array(slots);
    this.#segmentOf = new Uint16Array(slots);
  }

  take(slot: number): boolean {
    const freed = this.#freed.pop();
    if (freed === undefined && this.#full) return false;
    const object =
      this.#allocators.allocate(freed ?? this.#turn(), this.#bytes) ??
      this.#allocators.allocateFirst(this.#segments, this.#bytes);
    if (freed === undefined) this.#full = object === undefined;
    if (!object) return false;
    this.#handles[slot] = object.handle;
    this.#segmentOf[slot] = object.segment;
    return true;
  }

  give(slot: number): void {
    this.#allocators.free(this.#handles[slot]);
    this.#freed.push(this.#segmentOf[slot]);
  }

  get used(): number {
    return this.#segments.reduce((bytes, segment) => bytes + this.#allocators.figures(segment).used, 0);
  }

  #turn(): number {
    const segment = this.#segments[this.#next];
    this.#next = (this.#next + 1) % this.#segments.length;
    return segment;
  }
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #index = new PrefixIndex({ keyWidth: 8 });
  /** Common blocks, and blocks that a session adds to them until its end. */
  readonly #common: number;
  readonly #own: number;
  /** Keys of all slots, as numbers and as pairs of words, and scratch for those of one chain and of what left. */
  readonly #keys: BigUint64Array;
  readonly #words: Uint32Array;
  readonly #chain: BigUint64Array;
  #left = new BigUint64Array(1024);
  readonly #slots: Uint32Array;
  readonly #local: { tier: Tier; instance: number }[] = [];
  readonly #localCapacity: number;
  readonly #pool: { tier: Tier; instance: number; room: SegmentRoom };
  #promptTokens = 0;
  #hitTokens = 0;
  #localHitTokens = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    const { system, first, input, output, turns, block, sessions, instances, gpus, tokenBytes } = options;
    this.#common = Math.floor(system / block);
    const longest = Math.floor((system + first + (turns - 1) * (input + output) + output) / block);
    this.#own = longest - this.#common;
    const slots = this.#common + sessions * this.#own;
    if (slots * (instances + 1) > MAX_SLOTS) {
      throw errors.invalidArgument(
        'sessions',
        sessions / instances,
        `fewer, or block larger: at most ${MAX_SLOTS} blocks in all caches`,
      );
    }
    this.#words = new Uint32Array(2 * slots);
    for (let slot = 0; slot < slots; slot++) writeHash(this.#words, slot, slot);
    this.#keys = new BigUint64Array(this.#words.buffer);
    this.#chain = new BigUint64Array(longest);
    this.#slots = new Uint32Array(longest);

    const bytes = block * tokenBytes;
    this.#localCapacity = Math.floor((options.hbm * GB) / bytes);
    if (this.#localCapacity < longest) {
      throw errors.invalidArgument('hbm', options.hbm, `room for one whole context, ${(longest * bytes) / GB} GB`);
    }
    for (let at = 0; at < instances; at++) {
      const tier = new Tier(slots, lru({ slots, capacity: this.#localCapacity }), countedRoom(this.#localCapacity));
      this.#local.push({ tier, instance: this.#index.addInstance(`prefill-${at}`) });
    }
    const length = Math.floor(options.segment * GB);
    const capacity = gpus * Math.floor(length / bytes);
    if (capacity < longest) {
      throw errors.invalidArgument('segment', options.segment, 'GB that hold a whole context in all segments together');
    }
    const room = new SegmentRoom(gpus, length, bytes, slots);
    const tier = new Tier(slots, POLICIES[options.policy]({ slots, capacity }), room);
    this.#pool = { tier, room, instance: this.#index.addInstance('pool') };
  }

  /** Prefills one turn's prompt on an instance. */
  serve({ session, prompt, output }: Turn, at: number): void {
    const { block, saveOutput } = this.#options;
    const local = this.#local[at];
    const pool = this.#pool;
    // The KV of an answer's last token is never computed.
    const saved = Math.floor((prompt + (saveOutput ? Math.max(0, output - 1) : 0)) / block);
    const asked = Math.floor(prompt / block);
    const slots = this.#chainOf(session, saved);
    const match = this.#index.match(this.#chain.subarray(0, asked));
    const localHit = match.length(local.instance, 'gpu');
    const hit = Math.max(localHit, match.length(pool.instance, 'cpu'));
    this.#promptTokens += prompt;
    this.#hitTokens += hit * block;
    this.#localHitTokens += localHit * block;
    this.#keep(local.tier, local.instance, 'gpu', slots.subarray(0, asked));
    this.#keep(pool.tier, pool.instance, 'cpu', slots);
  }

  figures(): ClusterFigures {
    const { block, tokenBytes } = this.#options;
    const pool = this.#pool;
    const share = (tokens: number) => (this.#promptTokens === 0 ? 0 : tokens / this.#promptTokens);
    return {
      prefillInstances: this.#local.length,
      promptTokens: this.#promptTokens,
      hitTokens: this.#hitTokens,
      hitRate: share(this.#hitTokens),
      localHitTokens: this.#localHitTokens,
      localHitRate: share(this.#localHitTokens),
      localCapacity: this.#local.length * this.#localCapacity * block * tokenBytes,
      poolCapacity: pool.room.capacity,
      localEvictions: this.#local.reduce((sum, { tier }) => sum + tier.evictions, 0),
      poolEvictions: pool.tier.evictions,
      poolObjects: pool.tier.size,
      poolBytes: pool.room.used,
    };
  }

  /** Fills the scratch chain with the first `count` blocks of a session; their slots. */
  #chainOf(session: number, count: number): Uint32Array {
    const shared = Math.min(count, this.#common);
    const from = this.#common + session * this.#own;
    this.#chain.set(this.#keys.subarray(0, shared));
    this.#chain.set(this.#keys.subarray(from, from + count - shared), shared);
    for (let at = 0; at < shared; at++) this.#slots[at] = at;
    for (let at = shared; at < count; at++) this.#slots[at] = from + at - shared;
    return this.#slots.subarray(0, count);
  }

  /** Uses a chain in a tier and tells the index what came and what left. */
  #keep(tier: Tier, instance: number, name: 'gpu' | 'cpu', slots: Uint32Array): void {
    const left = tier.use(slots);
    if (left.length > 0) this.#index.remove(instance, this.#keysOf(left), { tier: name });
    this.#index.insert(instance, this.#chain.subarray(0, slots.length), { tier: name });
  }

  /** Keys of what left, the other way round: tails go first, and the index trims a list of blocks from its end. */
  #keysOf(left: readonly number[]): BigUint64Array {
    if (left.length > this.#left.length) this.#left = new BigUint64Array(2 * left.length);
    const words = new Uint32Array(this.#left.buffer);
    let at = 2 * left.length;
    for (const slot of left) {
      words[--at] = this.#words[2 * slot + 1];
      words[--at] = this.#words[2 * slot];
    }
    return this.#left.subarray(0, left.length);
  }
}
