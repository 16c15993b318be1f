/**
 * Objects being read. Every piece is summed as it is handed out, in the caller's memory or in one step with its copy;
 * `finish` believes an object only if every byte was read, its sum is the one it was stored with, and the lease that
 * protected it still ran. Anything else is a miss with its reason.
 */
import type { Descriptors } from '../core/descriptors.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { ObjectInfo, Replica } from '../master/api.js';
import type { CallLimits } from '../transfer/transfer.js';
import type { BatchOptions, GetBatch, StoreMissReason } from './api.js';
import { checkTenant, Limits, pick, STEP_BYTES, UnderWay } from './batch.js';
import type { StoreContext } from './context.js';
import { MISS_STATUS, missReason } from './counters.js';
import { Coverage, type Run } from './coverage.js';
import { sumOf } from './memory.js';
import { Moves } from './moves.js';
import { Pieces } from './pieces.js';
import type { Place, Session } from './session.js';

export interface FoundObject {
  readonly size: number;
  readonly checksum: bigint | undefined;
  readonly place: Place;
  /** When its lease ends, by the session's clock. */
  readonly expires: number;
  readonly coverage: Coverage;
  /** Bytes that reads have asked for. */
  wanted: number;
  miss: StoreMissReason | undefined;
}

/** What went wrong between us and the owner, as a reason; undefined for what is the caller's own doing. */
function failure(error: unknown): StoreMissReason | undefined {
  if (!(error instanceof MooncakeError)) return undefined;
  switch (error.code) {
    case 'ERR_INVALID_ARGUMENT':
    case 'ERR_ABORTED':
      return undefined;
    case 'ERR_TIMEOUT':
      return 'timeout';
    case 'ERR_CORRUPT':
      return 'corrupt';
    case 'ERR_SEGMENT':
      return 'removed';
    default:
      return 'peer-lost';
  }
}

/** The nearest replica: one in this process before one of a peer. A reason where none can be reached. */
function locate(
  session: Session,
  replicas: readonly Replica[],
): Place | StoreMissReason | Promise<Place | StoreMissReason> {
  const later: Promise<Place>[] = [];
  let reason: StoreMissReason = 'incomplete';
  for (const replica of replicas) {
    if (replica.state !== 'complete') continue;
    try {
      const place = session.place(replica);
      if (!(place instanceof Promise)) return place;
      later.push(place);
    } catch (error) {
      reason = failure(error) ?? 'removed';
    }
  }
  if (later.length === 0) return reason;
  return Promise.any(later).catch(({ errors: [error] }: AggregateError) => failure(error) ?? 'peer-lost');
}

export class ObjectGets implements GetBatch {
  readonly statuses: Int32Array;
  readonly sizes: Float64Array;
  readonly #context: StoreContext;
  #session: Session | undefined;
  readonly #keys: Keys;
  readonly #tenant: string;
  readonly #stride: number;
  readonly #objects: (FoundObject | undefined)[] = [];
  readonly #underWay = new UnderWay('the batch');

  private constructor(context: StoreContext, keys: Keys, options: BatchOptions) {
    this.#context = context;
    this.#keys = keys;
    this.#tenant = checkTenant(options.tenant);
    this.#stride = options.stride;
    this.statuses = new Int32Array(keys.length);
    this.sizes = new Float64Array(keys.length);
  }

  static async open(context: StoreContext, keys: Keys, options: BatchOptions, limits: Limits): Promise<ObjectGets> {
    const gets = new ObjectGets(context, keys, options);
    try {
      const session = (gets.#session = await limits.within(context.session()));
      // The lease is counted from before the call: the service grants it later, so it never ends before we think.
      const asked = session.now();
      const outcomes = await session.metadata(limits.rest()).getReplicas(keys, gets.#tenant);
      for (const [i, outcome] of outcomes.entries()) {
        if (!outcome.ok) {
          gets.#missed(i, missReason(outcome.status, outcome.why));
          continue;
        }
        const place = locate(session, outcome.value.replicas);
        gets.#found(i, outcome.value, place instanceof Promise ? await limits.within(place) : place, asked);
      }
      limits.check();
    } catch (error) {
      const reason = failure(error);
      if (reason === undefined) throw error;
      gets.#objects.length = 0;
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

  /**
   * Reads the first `target.length` bytes of an object into memory that need not be registered. `fresh`: nobody has touched
   * that memory lately.
   */
  fill(object: number, target: Uint8Array, limits: Limits, fresh = false): Promise<void> {
    return this.#underWay.track(this.#guard([object], () => this.#fill(object, target, limits, fresh)));
  }

  /** Sums a whole object where it lies, without a copy; for memory of this process alone. */
  check(object: number, limits: Limits): Promise<void> {
    return this.#underWay.track(this.#guard([object], () => this.#check(object, limits)));
  }

  read(descriptors: Descriptors, options: CallLimits = {}): Promise<void> {
    const touched = new Set<number>();
    return this.#underWay.track(
      this.#guard(touched, () => this.#read(descriptors, new Limits(options, this.#context), touched)),
    );
  }

  /** `limits` of the call that reads and finishes in one. */
  async finish(limits?: Limits): Promise<Int32Array> {
    if (!(await this.#underWay.finish())) throw errors.closed('the batch');
    const statuses = this.statuses.slice();
    const corrupt: number[] = [];
    const now = this.#session?.now() ?? 0;
    for (const [i, found] of this.#objects.entries()) {
      if (found === undefined) continue;
      const miss = this.#judge(found, now);
      if (miss === undefined) continue;
      statuses[i] = MISS_STATUS[miss];
      this.#context.counters.misses[miss]++;
      if (miss === 'corrupt') corrupt.push(i);
    }
    // That it cannot be looked into now changes nothing for this reader.
    if (corrupt.length > 0) await this.#suspect(corrupt, limits).catch(() => {});
    return statuses;
  }

  async #suspect(corrupt: readonly number[], limits: Limits | undefined): Promise<void> {
    const replicas = corrupt.map((i) => this.#objects[i]?.place.replica ?? -1);
    await this.#session?.suspect(pick(this.#keys, corrupt), replicas, this.#tenant, limits?.ending());
  }

  /** Ends the batch without a verdict: nothing that was read counts. */
  async abort(): Promise<void> {
    await this.#underWay.abort();
  }

  #found(i: number, { size, checksum, leaseMs }: ObjectInfo, place: Place | StoreMissReason, asked: number): void {
    if (typeof place === 'string') {
      this.#missed(i, place);
      return;
    }
    this.sizes[i] = size;
    const [expires, coverage] = [asked + leaseMs, new Coverage()];
    this.#objects[i] = { size, checksum, place, expires, coverage, wanted: 0, miss: undefined };
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

  async #fill(index: number, target: Uint8Array, limits: Limits, fresh: boolean): Promise<void> {
    const object = this.#objects[index];
    if (object === undefined || object.miss !== undefined || target.length === 0) return;
    const { memory, peer, offset: base } = object.place;
    const { length } = target;
    const whole = () => {
      if (target.length !== length) throw errors.segment('into', length, 'its memory was detached or resized');
    };
    if (memory !== undefined) {
      for (let at = 0; at < length; at += STEP_BYTES) {
        if (this.#context.pacer.full) await this.#pause(limits);
        whole();
        this.#take(object, at, length <= STEP_BYTES ? target : target.subarray(at, at + STEP_BYTES), fresh);
      }
      return;
    }
    const { transfer } = this.#context;
    const segment = transfer.register(target);
    try {
      object.wanted += length;
      const moves = new Moves();
      moves.of(peer).push(object.place.segment, base, segment, 0, length);
      await this.#receive(moves, [object], limits);
    } finally {
      await transfer.unregister(segment);
    }
    for (let at = 0; at < length && object.miss === undefined; at += STEP_BYTES) {
      if (this.#context.pacer.full) await this.#pause(limits);
      whole();
      this.#arrived(object, at, target.subarray(at, at + STEP_BYTES));
    }
  }

  async #read(descriptors: Descriptors, limits: Limits, touched: Set<number>): Promise<void> {
    const { transfer, pacer } = this.#context;
    const cursor = () => new Pieces(descriptors, 'source', this.#stride, this.#keys.length, STEP_BYTES);
    const moves = new Moves();
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
      const { place } = object;
      if (place.peer !== undefined) {
        moves.of(place.peer).push(place.segment, place.offset + offset, segment, at, length);
        continue;
      }
      if (pacer.full) await this.#pause(limits);
      this.#take(object, offset, memory.subarray(at, at + length));
    }
    if (moves.empty) return;
    const objects = [...touched].map((i) => this.#objects[i] as FoundObject);
    await this.#receive(moves, objects, limits);
    for (const pieces = cursor(); pieces.next(); ) {
      const object = this.#objects[pieces.object];
      if (object?.place.peer === undefined || object.miss !== undefined) continue;
      if (pacer.full) await this.#pause(limits);
      const { offset, segment, at, length } = pieces;
      this.#arrived(object, offset, transfer.memory(segment).subarray(at, at + length));
    }
  }

  /**
   * Reads from peers; what the cluster does to it makes misses. The transport need not sum what will be compared with the
   * objects' own checksums.
   */
  async #receive(moves: Moves, touched: readonly FoundObject[], limits: Limits): Promise<void> {
    const objects = touched.filter(({ place }) => place.peer !== undefined);
    const whole = ({ checksum, wanted, size }: FoundObject) => checksum !== undefined && wanted === size;
    const verify = this.#context.verify && objects.every(whole) ? 'off' : undefined;
    try {
      await limits.move(this.#underWay.signal, (rest) =>
        moves.run((peer, descriptors) => peer.read(descriptors, { ...rest, verify })),
      );
    } catch (error) {
      const reason = failure(error);
      if (reason === undefined) throw error;
      for (const object of objects) object.miss ??= reason;
    }
  }

  async #pause(limits: Limits): Promise<void> {
    const { pacer } = this.#context;
    while (pacer.full) await pacer.turn();
    limits.check();
    this.#underWay.check();
  }

  /** A piece of an object in this process: copied and summed in one step. */
  #take(object: FoundObject, offset: number, target: Uint8Array, fresh = false): void {
    const { memory, offset: base } = object.place;
    if (memory === undefined) return;
    const run = this.#cover(object, offset, target.length);
    const from = base + offset;
    if (this.#context.verify) run.crc = memory.copyOut(from, target, run.crc, fresh);
    else memory.read(from, target, fresh);
    this.#context.pacer.spend(target.length);
  }

  /** A piece that a peer sent: it is summed where it is now, in the caller's memory. */
  #arrived(object: FoundObject, offset: number, target: Uint8Array): void {
    const run = this.#cover(object, offset, target.length);
    if (this.#context.verify) run.crc = sumOf(target, run.crc);
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
