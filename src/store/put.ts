/**
 * Objects being written. Bytes go straight to their place, their sum is taken from the caller's side of the copy piece
 * by piece, and nothing is visible before the last piece of an object has arrived: `commit` ends the puts of whole
 * objects and takes the others back.
 */
import type { Descriptors } from '../core/descriptors.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { Outcome, Replica, Status } from '../master/api.js';
import { STATUS } from '../master/status.js';
import type { CallLimits } from '../transfer/transfer.js';
import type { PutBatch, PutBatchOptions } from './api.js';
import { checkTenant, Limits, pick, STEP_BYTES, UnderWay } from './batch.js';
import type { StoreContext } from './context.js';
import { Coverage } from './coverage.js';
import { sumOf } from './memory.js';
import { Moves } from './moves.js';
import { Pieces } from './pieces.js';
import { keyName, type Place, type Session } from './session.js';

/** What an owner answers that has taken the puts back itself, or has lost everything. */
const GONE: readonly string[] = ['ERR_PEER', 'ERR_CLOSED', 'ERR_NOT_OWNER', 'ERR_NOT_SUPPORTED'];

interface OpenObject {
  /** Its key in the client's claims. */
  readonly name: string;
  readonly size: number;
  readonly places: Place[];
  readonly coverage: Coverage;
  /** A write to it failed: its bytes are unknown. */
  broken: boolean;
}

export interface PutOptions extends Omit<PutBatchOptions, 'stride'> {
  stride: number;
  /** Replaces what exists. */
  upsert?: boolean;
}

export class ObjectPuts implements PutBatch {
  readonly statuses: Int32Array;
  /** What the service said of keys that it refused. */
  readonly reasons: readonly (string | undefined)[];
  readonly #context: StoreContext;
  readonly #session: Session;
  readonly #keys: Keys;
  readonly #tenant: string;
  readonly #stride: number;
  readonly #upsert: boolean;
  readonly #objects: (OpenObject | undefined)[] = [];
  readonly #underWay = new UnderWay('the batch');
  /** When its writes must have ended, by the session's clock: late ones must not land in room of somebody else. */
  readonly #latest: number;

  private constructor(
    context: StoreContext,
    session: Session,
    keys: Keys,
    options: PutOptions,
    outcomes: readonly Outcome<Replica[]>[],
    asked: number,
  ) {
    this.#context = context;
    this.#session = session;
    this.#latest = asked + session.putWindowMs;
    this.#keys = keys;
    this.#tenant = checkTenant(options.tenant);
    this.#stride = options.stride;
    this.#upsert = options.upsert ?? false;
    this.statuses = Int32Array.from(outcomes, (outcome) => (outcome.ok ? 0 : outcome.status));
    this.reasons = outcomes.map((outcome) => (outcome.ok ? undefined : outcome.why));
  }

  static async open(
    context: StoreContext,
    keys: Keys,
    sizes: Float64Array,
    options: PutOptions,
    limits: Limits,
  ): Promise<ObjectPuts> {
    const session = await limits.within(context.session());
    const metadata = session.metadata(limits.rest());
    const tenant = checkTenant(options.tenant);
    const names = Array.from(sizes, (_, i) => keyName(keys.at(i), tenant));
    const { claims } = session;
    claims.check();
    const asked = session.now();
    const start = options.upsert ? metadata.upsertStart : metadata.putStart;
    const answer = start.call(metadata, session.client, keys, sizes, options, tenant);
    const answered = claims.starting(names, answer);
    let puts: ObjectPuts;
    let outcomes: readonly Outcome<Replica[]>[];
    try {
      outcomes = await answer;
      puts = new ObjectPuts(context, session, keys, options, outcomes, asked);
      for (const [i, outcome] of outcomes.entries()) {
        if (!outcome.ok) continue;
        claims.take(names[i], puts);
        puts.#objects[i] = { name: names[i], size: sizes[i], places: [], coverage: new Coverage(), broken: false };
      }
    } catch (error) {
      // Refused arguments have started nothing; after any other error nobody knows.
      if (!(error instanceof MooncakeError && error.code === 'ERR_INVALID_ARGUMENT')) claims.forget(names);
      throw error;
    } finally {
      answered();
    }
    try {
      for (const [i, outcome] of outcomes.entries()) {
        for (const replica of outcome.ok ? outcome.value : []) {
          const place = session.place(replica);
          puts.#objects[i]?.places.push(place instanceof Promise ? await limits.within(place) : place);
        }
      }
      limits.check();
    } catch (error) {
      await puts.abort(limits).catch(() => {});
      throw error;
    }
    return puts;
  }

  /** Every copy of an open object lies in this process. */
  isNear(object: number): boolean {
    return this.#objects[object]?.places.every(({ memory }) => memory !== undefined) ?? true;
  }

  /** Writes a whole object from memory that need not be registered: the parts in order. */
  fill(object: number, parts: readonly Uint8Array[], limits: Limits): Promise<void> {
    return this.#underWay.track(this.#guard([object], () => this.#fill(object, parts, limits)));
  }

  write(descriptors: Descriptors, options: CallLimits = {}): Promise<void> {
    const touched = new Set<number>();
    return this.#underWay.track(
      this.#guard(touched, () => this.#write(descriptors, new Limits(options, this.#context), touched)),
    );
  }

  /** `limits` of the call that writes and commits in one. */
  async commit(limits?: Limits): Promise<Int32Array> {
    if (!(await this.#underWay.finish())) throw errors.closed('the batch');
    await this.#settled(limits);
    const statuses = this.statuses.slice();
    const whole: number[] = [];
    const broken: number[] = [];
    for (const [i, object] of this.#objects.entries()) {
      if (object === undefined) continue;
      if (!this.#ours(object)) statuses[i] = STATUS.notFound;
      else if (!object.broken && object.coverage.bytes === object.size) whole.push(i);
      else {
        broken.push(i);
        statuses[i] = STATUS.invalidWrite;
      }
    }
    // Both at once: from now on another put of this client may have these keys. What is not taken back expires.
    const takenBack = this.#takeBack(broken, limits).catch(() => {});
    try {
      for (const [n, status] of (await this.#end(whole, limits)).entries()) statuses[whole[n]] = status;
    } catch (error) {
      this.#context.counters.failedPuts += whole.length + broken.length;
      throw error;
    } finally {
      await takenBack;
    }
    this.#count(statuses);
    return statuses;
  }

  /** `limits` of the call that ends so. */
  async abort(limits?: Limits): Promise<void> {
    if (!(await this.#underWay.abort())) return;
    await this.#settled(limits);
    const open = [...this.#objects.entries()].filter(([, object]) => object !== undefined);
    this.#context.counters.failedPuts += open.length;
    const ours = open.filter(([, object]) => object && this.#ours(object)).map(([i]) => i);
    await this.#takeBack(ours, limits).catch((error: unknown) => {
      if (!(error instanceof MooncakeError) || !GONE.includes(error.code)) throw error;
    });
  }

  /** Until it is known whose the keys are that another put of this client is asking for. */
  #settled(limits: Limits | undefined): Promise<void> {
    const { timeoutMs = this.#context.timeoutMs } = limits?.ending() ?? {};
    const names = this.#objects.flatMap((object) => object?.name ?? []);
    return this.#session.claims.answered(names, timeoutMs);
  }

  /** The put is still this batch's: another of this client has not preempted it. Asked once, at its end. */
  #ours({ name }: OpenObject): boolean {
    return this.#session.claims.drop(name, this);
  }

  async #end(whole: readonly number[], limits: Limits | undefined): Promise<readonly Status[]> {
    if (whole.length === 0) return [];
    const metadata = this.#session.metadata(limits?.ending());
    const sums = whole.map((i) => (this.#context.checksum ? this.#objects[i]?.coverage.digest() : undefined));
    const end = this.#upsert ? metadata.upsertEnd : metadata.putEnd;
    return end.call(metadata, this.#session.client, pick(this.#keys, whole), sums, this.#tenant);
  }

  async #takeBack(positions: readonly number[], limits: Limits | undefined): Promise<void> {
    if (positions.length === 0) return;
    const metadata = this.#session.metadata(limits?.ending());
    const revoke = this.#upsert ? metadata.upsertRevoke : metadata.putRevoke;
    await revoke.call(metadata, this.#session.client, pick(this.#keys, positions), this.#tenant);
  }

  #count(statuses: Int32Array): void {
    const { counters } = this.#context;
    for (const [i, status] of statuses.entries()) {
      if (status === STATUS.ok) {
        counters.puts++;
        counters.bytesPut += this.#objects[i]?.size ?? 0;
      } else if (status === STATUS.exists) counters.existing++;
      else counters.failedPuts++;
    }
  }

  /** The objects that a failed write touched are broken. */
  async #guard(touched: Iterable<number>, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      for (const i of touched) {
        const object = this.#objects[i];
        if (object) object.broken = true;
      }
      throw error;
    }
  }

  async #fill(index: number, parts: readonly Uint8Array[], limits: Limits): Promise<void> {
    this.#underWay.check();
    const object = this.#objects[index];
    if (object === undefined) return;
    const { transfer } = this.#context;
    const registered: number[] = [];
    try {
      const moves = new Moves();
      let offset = 0;
      for (const part of parts) {
        const remote = object.places.some((place) => place.peer !== undefined);
        const segment = remote && part.length > 0 ? transfer.register(part, { access: 'read' }) : -1;
        if (segment >= 0) registered.push(segment);
        for (let at = 0; at < part.length; at += STEP_BYTES) {
          const piece = part.length <= STEP_BYTES ? part : part.subarray(at, at + STEP_BYTES);
          if (this.#context.pacer.full) await this.#pause(limits);
          const end = offset + piece.length;
          // Memory that can be resized may have grown since; what lies behind the object is another's.
          if (end > object.size) throw errors.invalidArgument('value', end, `the ${object.size} bytes that it had`);
          this.#take(object, index, offset, piece, segment, at, moves);
          offset = end;
        }
      }
      await this.#send(moves, limits);
    } finally {
      for (const segment of registered) await transfer.unregister(segment);
    }
  }

  async #write(descriptors: Descriptors, limits: Limits, touched: Set<number>): Promise<void> {
    this.#underWay.check();
    const { transfer, pacer } = this.#context;
    const pieces = new Pieces(descriptors, 'destination', this.#stride, this.#keys.length, STEP_BYTES);
    const moves = new Moves();
    while (pieces.next()) {
      const { object: index, offset, segment, at, length } = pieces;
      const object = this.#objects[index];
      if (object === undefined) continue;
      const memory = transfer.memory(segment);
      if (at + length > memory.length) {
        throw errors.segment(
          'descriptors',
          `${at} to ${at + length}`,
          `leaves the ${memory.length} bytes of ${segment}`,
        );
      }
      if (offset + length > object.size) {
        const range = `${offset} to ${offset + length}`;
        throw errors.invalidArgument('descriptors', range, `within the ${object.size} bytes of object ${index}`);
      }
      if (pacer.full) await this.#pause(limits);
      touched.add(index);
      this.#take(object, index, offset, memory.subarray(at, at + length), segment, at, moves);
    }
    await this.#send(moves, limits);
  }

  /** Lets others have their turn; the batch may have ended when it is ours again. */
  async #pause(limits: Limits): Promise<void> {
    const { pacer } = this.#context;
    while (pacer.full) await pacer.turn();
    limits.check();
    this.#underWay.check();
  }

  /** One piece: summed, copied to places in this process, noted for those elsewhere. */
  #take(
    object: OpenObject,
    index: number,
    offset: number,
    piece: Uint8Array,
    segment: number,
    at: number,
    moves: Moves,
  ): void {
    this.#left();
    const run = object.coverage.add(offset, piece.length);
    if (run === undefined) {
      const range = `bytes ${offset} to ${offset + piece.length} of object ${index}`;
      throw errors.invalidArgument('descriptors', range, 'written once');
    }
    let summed = !this.#context.checksum;
    for (const place of object.places) {
      if (place.memory?.retired) throw errors.segment('segment', index, 'was taken away during the put');
      if (place.memory === undefined) {
        moves.of(place.peer).push(segment, at, place.segment, place.offset + offset, piece.length);
      } else if (summed) {
        place.memory.write(place.offset + offset, piece);
      } else {
        run.crc = place.memory.copyIn(place.offset + offset, piece, run.crc);
        summed = true;
      }
    }
    if (!summed) run.crc = sumOf(piece, run.crc);
    this.#context.pacer.spend(piece.length);
  }

  async #send(moves: Moves, limits: Limits): Promise<void> {
    if (moves.empty) return;
    const left = this.#left();
    await limits.move(this.#underWay.signal, ({ signal, timeoutMs = left }) => {
      const rest = { signal, timeoutMs: Math.min(timeoutMs, Math.ceil(left)) };
      return moves.run((peer, descriptors) => peer.write(descriptors, rest));
    });
  }

  /** Milliseconds in which writes must have ended. Throws ERR_TIMEOUT where there are none. */
  #left(): number {
    const left = this.#latest - this.#session.now();
    if (left <= 0) throw errors.timeout('a put', this.#session.putWindowMs);
    return left;
  }
}
