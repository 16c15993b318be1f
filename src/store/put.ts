/**
 * Objects being written. Bytes go straight to their place, their sum is taken from the caller's side of the copy piece
 * by piece, and nothing is visible before the last piece of an object has arrived: `commit` ends the puts of whole
 * objects and takes the others back. Those with bytes on their way that may still land are left to expire instead: the
 * service keeps the room of a put that fell silent back for as long as that may be.
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
import { Copies } from './copies.js';
import { Coverage } from './coverage.js';
import type { ValueMemory } from './far-reads.js';
import { Moves } from './moves.js';
import { Pieces } from './pieces.js';
import { keyName, type Session } from './session.js';
import { type OpenObject, Writes } from './writes.js';

/** What an owner answers that has taken the puts back itself, or has lost everything. */
const GONE: readonly string[] = ['ERR_PEER', 'ERR_CLOSED', 'ERR_NOT_OWNER', 'ERR_NOT_SUPPORTED'];

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
  readonly #writes: Writes;

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
    const latest = asked + session.putWindowMs;
    this.#writes = new Writes(context, session, latest, this.#underWay, (limits) => this.#pause(limits));
    this.#keys = keys;
    this.#tenant = checkTenant(options.tenant, context);
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
    const tenant = checkTenant(options.tenant, context);
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
        const [name, size] = [names[i], sizes[i]];
        puts.#objects[i] = {
          index: i,
          name,
          size,
          places: [],
          coverage: new Coverage(),
          failure: undefined,
          mayLand: false,
        };
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
        const object = puts.#objects[i];
        if (object && outcome.ok) await puts.#locate(object, outcome.value, limits);
      }
      limits.check();
    } catch (error) {
      await puts.abort(limits).catch(() => {});
      throw error;
    }
    return puts;
  }

  /** An object of which one copy cannot be reached fails; those beside it may still be written. */
  async #locate(object: OpenObject, replicas: readonly Replica[], limits: Limits): Promise<void> {
    try {
      for (const replica of replicas) {
        const place = this.#session.place(replica);
        object.places.push(place instanceof Promise ? await limits.within(place) : place);
      }
    } catch (error) {
      limits.check();
      object.failure = error;
    }
  }

  /** Every copy of an open object lies in this process. */
  isNear(object: number): boolean {
    return this.#objects[object]?.places.every(({ memory }) => memory !== undefined) ?? true;
  }

  /** What the writes of an object failed with. */
  failure(object: number): unknown {
    return this.#objects[object]?.failure;
  }

  /** Writes whole objects of this process from memory that need not be registered: the parts of each in order. */
  fillNear(values: ReadonlyMap<number, readonly ValueMemory[]>, limits: Limits): Promise<void> {
    return this.#underWay.track(this.#noted(values.keys(), () => this.#fill(values, limits)));
  }

  /** Writes whole objects that have copies with peers. */
  fillFar(values: ReadonlyMap<number, readonly ValueMemory[]>, limits: Limits): Promise<void> {
    const work = () => {
      this.#underWay.check();
      const writes = [...values].flatMap(([i, parts]) => {
        const object = this.#objects[i];
        return object && object.failure === undefined ? { object, parts } : [];
      });
      return this.#writes.fill(writes, limits);
    };
    return this.#underWay.track(this.#noted(values.keys(), work));
  }

  async write(descriptors: Descriptors, options: CallLimits = {}): Promise<void> {
    const { devices } = this.#context.transfer;
    if (!devices?.touches(descriptors, 'source')) return this.#track(descriptors, options);
    const limits = new Limits(options, this.#context);
    const staged = devices.stage(descriptors, 'source', limits.rest(), async (host, left) => {
      await this.#track(host, left);
      return undefined;
    });
    await this.#underWay.track(staged);
  }

  #track(descriptors: Descriptors, options: CallLimits): Promise<void> {
    const touched = new Set<number>();
    return this.#underWay.track(this.#write(descriptors, options, touched));
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
      else if (object.failure === undefined && object.coverage.bytes === object.size) whole.push(i);
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

  /** The service has forgotten the put. */
  lose(): void {
    this.#underWay.interrupt(errors.peer('the master', 'it has forgotten the put'));
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

  /** A revoke says that no write is under way any more: where one may be, the put is left to expire. */
  async #takeBack(positions: readonly number[], limits: Limits | undefined): Promise<void> {
    const ended = positions.filter((i) => !this.#objects[i]?.mayLand);
    if (ended.length === 0) return;
    const metadata = this.#session.metadata(limits?.ending());
    const revoke = this.#upsert ? metadata.upsertRevoke : metadata.putRevoke;
    await revoke.call(metadata, this.#session.client, pick(this.#keys, ended), this.#tenant);
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

  /** What the work fails with is the failure of the objects that it touched. */
  async #noted(touched: Iterable<number>, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      for (const i of touched) {
        const object = this.#objects[i];
        if (object) object.failure ??= error;
      }
    }
  }

  async #fill(values: ReadonlyMap<number, readonly ValueMemory[]>, limits: Limits): Promise<void> {
    this.#underWay.check();
    const nowhere = { segment: -1, at: 0 };
    const moves = new Moves();
    const copies = values.size > 1 ? Copies.gather() : undefined;
    for (const [index, parts] of values) {
      const object = this.#objects[index];
      if (object === undefined || object.failure !== undefined) continue;
      try {
        let offset = 0;
        for (const piece of steps(parts)) {
          if (this.#context.pacer.full) await this.#pause(limits, copies);
          const end = offset + piece.length;
          // Memory that can be resized may have grown since; what lies behind the object is another's.
          if (end > object.size) throw errors.invalidArgument('value', end, `the ${object.size} bytes that it had`);
          this.#writes.take(object, offset, piece, nowhere, moves, { gathered: copies });
          offset = end;
        }
      } catch (error) {
        object.failure ??= error;
      }
    }
    copies?.make();
  }

  /** Rejects with what went wrong where no object that it touched can be whole any more. */
  async #write(descriptors: Descriptors, options: CallLimits, touched: Set<number>): Promise<void> {
    const wrong: { error?: unknown } = {};
    await this.#noted(touched, async () => {
      try {
        await this.#writePieces(descriptors, new Limits(options, this.#context), touched);
      } catch (error) {
        wrong.error = error;
        throw error;
      }
    });
    if (wrong.error !== undefined) throw wrong.error;
    const failures = [...touched].map((i) => this.#objects[i]?.failure);
    if (failures.length > 0 && failures.every((failure) => failure !== undefined)) throw failures[0];
  }

  async #writePieces(descriptors: Descriptors, limits: Limits, touched: Set<number>): Promise<void> {
    this.#underWay.check();
    const { transfer, pacer } = this.#context;
    const pieces = new Pieces(descriptors, 'destination', this.#stride, this.#keys.length, STEP_BYTES);
    const moves = new Moves();
    const copies = Copies.gather();
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
      touched.add(index);
      if (object.failure !== undefined) continue;
      if (pacer.full) await this.#pause(limits, copies);
      this.#writes.take(object, offset, memory.subarray(at, at + length), { segment, at }, moves, { gathered: copies });
    }
    copies?.make();
    const objects = [...touched].flatMap((i) => this.#objects[i] ?? []);
    await this.#writes.send(moves, objects, limits);
  }

  /** Makes what was gathered and lets others have their turn; the batch may have ended when it is ours again. */
  async #pause(limits: Limits, copies?: Copies): Promise<void> {
    copies?.make();
    const { pacer } = this.#context;
    while (pacer.full) await pacer.turn();
    limits.check();
    this.#underWay.check();
  }
}

/** The parts in order, in pieces that are copied in one synchronous step. */
function* steps(parts: readonly ValueMemory[]): Generator<Uint8Array> {
  for (const { bytes } of parts) {
    if (bytes.length <= STEP_BYTES && bytes.length > 0) yield bytes;
    else for (let at = 0; at < bytes.length; at += STEP_BYTES) yield bytes.subarray(at, at + STEP_BYTES);
  }
}
