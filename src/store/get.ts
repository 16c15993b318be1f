/**
 * Objects being read. Every piece is summed as it is handed out, in the caller's memory or in one step with its copy;
 * `finish` believes an object only if every byte was read, its sum is the one it was stored with, and the lease that
 * protected it still ran. Anything else is a miss with its reason.
 */
import type { Descriptors } from '../core/descriptors.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { ObjectInfo } from '../master/api.js';
import { DescriptorList } from '../transfer/descriptor-list.js';
import type { CallLimits } from '../transfer/transfer.js';
import { type BatchOptions, type GetBatch, OBJECTS, type StoreMissReason } from './api.js';
import { checkTenant, Limits, pick, STEP_BYTES, UnderWay } from './batch.js';
import type { StoreContext } from './context.js';
import { Copies } from './copies.js';
import { MISS_STATUS, missReason } from './counters.js';
import { Coverage, type Run } from './coverage.js';
import { FarReads, type ValueMemory } from './far-reads.js';
import { type FoundObject, failure, type Located, locate } from './found.js';
import { CACHED } from './hot-cache.js';
import { Pieces } from './pieces.js';
import { keyName, type Session } from './session.js';

/** What is read of so much at once is in no cache any more when the last of it has come: twice a core's second level. */
const PASSING_BYTES = 4 * 2 ** 20;

export class ObjectGets implements GetBatch {
  readonly statuses: Int32Array;
  readonly sizes: Float64Array;
  readonly #context: StoreContext;
  #session: Session | undefined;
  #far: FarReads | undefined;
  readonly #keys: Keys;
  readonly #tenant: string;
  readonly #stride: number;
  readonly #objects: (FoundObject | undefined)[] = [];
  readonly #underWay = new UnderWay('the batch');
  /** What somebody may have laid out for us. */
  #leased: ObjectInfo[] = [];

  private constructor(context: StoreContext, keys: Keys, options: BatchOptions) {
    this.#context = context;
    this.#keys = keys;
    this.#tenant = checkTenant(options.tenant, context);
    this.#stride = options.stride;
    this.statuses = new Int32Array(keys.length);
    this.sizes = new Float64Array(keys.length);
  }

  static async open(context: StoreContext, keys: Keys, options: BatchOptions, limits: Limits): Promise<ObjectGets> {
    const gets = new ObjectGets(context, keys, options);
    try {
      const session = (gets.#session = await limits.within(context.session()));
      gets.#far = new FarReads(context, session, gets.#underWay, (rest) => gets.#pause(rest));
      // The lease is counted from before the call: the service grants it later, so it never ends before we think.
      const asked = session.now();
      const outcomes = await session.metadata(limits.rest()).getReplicas(keys, gets.#tenant);
      for (const [i, outcome] of outcomes.entries()) {
        if (!outcome.ok) {
          gets.#missed(i, missReason(outcome.status, outcome.why));
          continue;
        }
        if (session.release) gets.#leased.push(outcome.value);
        const located = gets.#cached(i, outcome.value) ?? locate(session, outcome.value.replicas, limits);
        gets.#found(i, outcome.value, located instanceof Promise ? await located : located, asked);
      }
      limits.check();
    } catch (error) {
      const reason = failure(error);
      if (reason === undefined) throw error;
      gets.#objects.length = 0;
      gets.#release();
      for (let i = 0; i < keys.length; i++) if (gets.statuses[i] === 0) gets.#missed(i, reason);
    }
    return gets;
  }

  /** A miss that the caller found: an object of another size than it expects. */
  refuse(object: number, reason: StoreMissReason): void {
    const found = this.#objects[object];
    if (found) found.miss ??= reason;
  }

  /** What was found; undefined for a miss. */
  found(object: number): Readonly<FoundObject> | undefined {
    return this.#objects[object];
  }

  /** Milliseconds until the lease of a found object ends; negative after that. */
  leaseMs(object: number): number {
    const found = this.#objects[object];
    return found && this.#session ? found.expires - this.#session.now() : 0;
  }

  /** The object is read in this process. */
  isNear(object: number): boolean {
    return this.#objects[object]?.place.memory !== undefined;
  }

  /**
   * Reads the first bytes of objects of this process, as many as the targets have, into memory that need not be registered.
   * `fresh`: that memory is in no cache, or will not be for long.
   */
  fillNear(targets: ReadonlyMap<number, ValueMemory>, limits: Limits, fresh: boolean): Promise<void> {
    const unread = new Set(targets.keys());
    return this.#underWay.track(this.#guard(unread, () => this.#fill(targets, limits, fresh, unread)));
  }

  /** Reads the first bytes of objects that lie with peers, as many as the targets have. */
  fillFar(targets: ReadonlyMap<number, ValueMemory>, limits: Limits, fresh: boolean): Promise<void> {
    const work = async () => {
      const reads = [...targets].flatMap(([i, target]) => {
        const object = this.#objects[i];
        return object && object.miss === undefined ? { object, target, fresh } : [];
      });
      await this.#far?.fill(reads, limits);
    };
    return this.#underWay.track(this.#guard(targets.keys(), work));
  }

  /** Sums a whole object where it lies, without a copy; for memory of this process alone. */
  check(object: number, limits: Limits): Promise<void> {
    return this.#underWay.track(this.#guard([object], () => this.#check(object, limits)));
  }

  async read(descriptors: Descriptors, options: CallLimits = {}): Promise<void> {
    const { devices } = this.#context.transfer;
    if (!devices?.touches(descriptors, 'destination')) return this.#track(descriptors, options);
    const limits = new Limits(options, this.#context);
    const named = new Set<number>();
    const found = this.#readable(descriptors, named);
    // What did not come to its end in the GPU's memory is a miss, also where its bytes had arrived here.
    const work = async () => {
      await devices.stage(found, 'destination', limits.rest(), async (host, left) => {
        await this.#track(host, left);
        return undefined;
      });
    };
    await this.#underWay.track(this.#guard(named, work));
  }

  /** The descriptors of objects that may be read: for the others nothing is to be written anywhere. */
  #readable(descriptors: Descriptors, named: Set<number>): Descriptors {
    const list = new DescriptorList();
    for (const pieces = new Pieces(descriptors, 'source', this.#stride, this.#keys.length); pieces.next(); ) {
      const { object, offset, segment, at, length } = pieces;
      const found = this.#objects[object];
      if (found === undefined || found.miss !== undefined) continue;
      named.add(object);
      list.push(OBJECTS, object * this.#stride + offset, segment, at, length);
    }
    return list.descriptors();
  }

  #track(descriptors: Descriptors, options: CallLimits): Promise<void> {
    const touched = new Set<number>();
    return this.#underWay.track(
      this.#guard(touched, () => this.#read(descriptors, new Limits(options, this.#context), touched)),
    );
  }

  /** `limits` of the call that reads and finishes in one. */
  async finish(limits?: Limits): Promise<Int32Array> {
    const statuses = await this.judge();
    const corrupt = [...this.#objects.entries()]
      .filter(([i, found]) => found && statuses[i] === MISS_STATUS.corrupt && found.place.replica !== CACHED)
      .map(([i]) => i);
    // That it cannot be looked into now changes nothing for this reader.
    if (corrupt.length > 0) await this.#suspect(corrupt, limits).catch(() => {});
    return statuses;
  }

  /** As `finish`, but nobody is told of what is corrupt. */
  async judge(): Promise<Int32Array> {
    if (!(await this.#underWay.finish())) throw errors.closed('the batch');
    const statuses = this.statuses.slice();
    const now = this.#session?.now() ?? 0;
    this.#release();
    for (const [i, found] of this.#objects.entries()) {
      if (found === undefined) continue;
      const miss = this.#judge(found, now);
      this.#remember(i, found, miss);
      if (miss === undefined) continue;
      statuses[i] = MISS_STATUS[miss];
      this.#context.counters.misses[miss]++;
    }
    return statuses;
  }

  async #suspect(corrupt: readonly number[], limits: Limits | undefined): Promise<void> {
    const replicas = corrupt.map((i) => this.#objects[i]?.place.replica ?? -1);
    await this.#session?.suspect(pick(this.#keys, corrupt), replicas, this.#tenant, limits?.ending());
  }

  /** Ends the batch without a verdict: nothing that was read counts. */
  async abort(): Promise<void> {
    await this.#underWay.abort();
    this.#release();
  }

  /** What was found is read where it lies also after the end, for as long as its lease runs. */
  keep(): void {
    this.#leased = [];
  }

  #release(): void {
    for (const found of this.#leased.splice(0)) this.#session?.release?.(found);
  }

  /** The object as it was read lately: what has its size and its checksum has its bytes. */
  #cached(i: number, { size, checksum }: ObjectInfo): Located | undefined {
    const { hotCache } = this.#context;
    if (!hotCache || checksum === undefined) return undefined;
    const place = hotCache.find(keyName(this.#keys.at(i), this.#tenant), size, checksum);
    return place && { place, others: [] };
  }

  #found(i: number, { size, checksum, leaseMs }: ObjectInfo, located: Located | StoreMissReason, asked: number): void {
    if (typeof located === 'string') {
      this.#missed(i, located);
      return;
    }
    this.sizes[i] = size;
    this.#objects[i] = {
      size,
      checksum,
      place: located.place,
      others: located.others,
      turning: undefined,
      expires: asked + leaseMs,
      coverage: new Coverage(),
      wanted: 0,
      miss: undefined,
      copy: undefined,
    };
  }

  #missed(i: number, reason: StoreMissReason): void {
    this.statuses[i] = MISS_STATUS[reason];
    this.#context.counters.misses[reason]++;
  }

  /** The verdict: a reason, or undefined for a hit, which is counted. */
  #judge(found: FoundObject, now: number): StoreMissReason | undefined {
    const { counters, verify, requireChecksum } = this.#context;
    const { size, checksum, coverage, miss } = found;
    if (miss !== undefined) return miss;
    // At that very moment its room may be another's.
    if (now >= found.expires) return 'lease-expired';
    if (found.place.memory?.retired) return 'removed';
    const comparable = verify && checksum !== undefined && coverage.bytes === size;
    if (comparable && coverage.digest() !== checksum) return 'corrupt';
    if (!comparable && requireChecksum) return 'unverified';
    counters.hits++;
    counters.bytesGot += coverage.bytes;
    if (comparable) counters.verifiedBytes += size;
    else counters.unverifiedHits++;
    return undefined;
  }

  /** For the hot cache: what was verified is kept, what is corrupt there goes. */
  #remember(i: number, found: FoundObject, miss: StoreMissReason | undefined): void {
    const { checksum, copy, coverage, place, size } = found;
    const { hotCache, verify } = this.#context;
    if (!hotCache || checksum === undefined) return;
    const isVerified = miss === undefined && verify && copy !== undefined && coverage.bytes === size;
    const isSpoilt = miss === 'corrupt' && place.replica === CACHED;
    if (!isVerified && !isSpoilt) return;
    const name = keyName(this.#keys.at(i), this.#tenant);
    if (isVerified) hotCache.add(name, checksum, copy);
    else hotCache.drop(name);
  }

  /** Objects of a read that did not come to its end are misses; so is what came too late, and nothing is thrown for it. */
  async #guard(touched: Iterable<number>, work: () => Promise<void>): Promise<void> {
    this.#underWay.check();
    try {
      await work();
    } catch (error) {
      const late = error instanceof MooncakeError && error.code === 'ERR_TIMEOUT';
      for (const i of touched) this.refuse(i, late ? 'timeout' : 'unverified');
      if (!late) throw error;
    }
  }

  async #check(index: number, limits: Limits): Promise<void> {
    const object = this.#objects[index];
    const memory = object?.place.memory;
    if (object === undefined || memory === undefined) return;
    for (let at = 0; at < object.size; at += STEP_BYTES) {
      if (this.#context.pacer.full) await this.#pause(limits);
      const length = Math.min(STEP_BYTES, object.size - at);
      const run = object.coverage.add(at, length);
      if (run && this.#context.verify) run.crc = memory.sum(object.place.offset + at, length, run.crc);
      this.#context.pacer.spend(length);
    }
  }

  /** Takes what was read out of `unread`. */
  async #fill(
    targets: ReadonlyMap<number, ValueMemory>,
    limits: Limits,
    fresh: boolean,
    unread: Set<number>,
  ): Promise<void> {
    const copies = fresh && targets.size > 1 ? Copies.gather() : undefined;
    try {
      for (const [index, { bytes: target }] of targets) {
        const object = this.#objects[index];
        const { length } = target;
        for (let at = 0; object && object.miss === undefined && at < length; at += STEP_BYTES) {
          if (this.#context.pacer.full) await this.#pause(limits, copies);
          if (target.length !== length) throw errors.segment('into', length, 'its memory was detached or resized');
          this.#take(object, at, length <= STEP_BYTES ? target : target.subarray(at, at + STEP_BYTES), fresh, copies);
        }
        unread.delete(index);
      }
    } finally {
      copies?.make();
    }
  }

  async #read(descriptors: Descriptors, limits: Limits, touched: Set<number>): Promise<void> {
    const { transfer, pacer } = this.#context;
    const cursor = () => new Pieces(descriptors, 'source', this.#stride, this.#keys.length, STEP_BYTES);
    const far = new Set<FoundObject>();
    const passing = this.sizes.reduce((sum, size) => sum + size, 0) >= PASSING_BYTES;
    const copies = passing ? Copies.gather() : undefined;
    for (const pieces = cursor(); pieces.next(); ) {
      const object = this.#objects[pieces.object];
      if (object === undefined || object.miss !== undefined) continue;
      const { offset, segment, at, length } = pieces;
      const memory = transfer.memory(segment);
      if (at + length > memory.length) {
        throw errors.segment(
          'descriptors',
          `${at} to ${at + length}`,
          `leaves the ${memory.length} bytes of ${segment}`,
        );
      }
      if (offset + length > object.size) this.refuse(pieces.object, 'size');
      if (object.miss !== undefined) continue;
      touched.add(pieces.object);
      object.wanted += length;
      if (object.place.peer !== undefined) {
        far.add(object);
        continue;
      }
      if (pacer.full) await this.#pause(limits, copies);
      this.#take(object, offset, memory.subarray(at, at + length), passing, copies);
    }
    copies?.make();
    if (far.size === 0) return;
    await this.#far?.receive(far, limits, (moves, isWanted) => {
      for (const pieces = cursor(); pieces.next(); ) {
        const object = this.#objects[pieces.object];
        if (object?.place.peer === undefined || object.miss !== undefined || !isWanted(object)) continue;
        const { offset, segment, at, length } = pieces;
        moves.of(object.place.peer).push(object.place.segment, object.place.offset + offset, segment, at, length);
      }
    });
    for (const pieces = cursor(); pieces.next(); ) {
      const object = this.#objects[pieces.object];
      if (object === undefined || !far.has(object) || object.miss !== undefined) continue;
      if (pacer.full) await this.#pause(limits);
      const { offset, segment, at, length } = pieces;
      this.#far?.arrived(object, offset, transfer.memory(segment).subarray(at, at + length));
    }
  }

  /** Makes what was gathered and lets others have their turn. */
  async #pause(limits: Limits, copies?: Copies): Promise<void> {
    copies?.make();
    const { pacer } = this.#context;
    while (pacer.full) await pacer.turn();
    limits.check();
    this.#underWay.check();
  }

  /** A piece of an object in this process: copied and summed in one step, or noted in `copies`. */
  #take(object: FoundObject, offset: number, target: Uint8Array, fresh: boolean, copies?: Copies): void {
    const { memory, offset: base } = object.place;
    if (memory === undefined) return;
    const run = this.#cover(object, offset, target.length);
    const from = base + offset;
    const source = copies && memory.range(from, target.length);
    if (source) copies.add(target, source, this.#context.verify ? run : undefined);
    else if (this.#context.verify) run.crc = memory.copyOut(from, target, run.crc, fresh);
    else memory.read(from, target, fresh);
    this.#context.pacer.spend(target.length);
  }

  #cover(object: FoundObject, offset: number, length: number): Run {
    const run = object.coverage.add(offset, length);
    if (run === undefined) {
      throw errors.invalidArgument('descriptors', `bytes ${offset} to ${offset + length} of an object`, 'read once');
    }
    return run;
  }
}
