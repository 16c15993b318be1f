/**
 * Copies and moves that the master asks for: whoever lends the memory of a source reads it there and writes the new copies.
 * Tasks are fetched after each ping, as stock clients do it, and carried out one after the other; how each ended is said.
 */
import { errors, MooncakeError } from '../../core/errors.js';
import type { Replica, Uuid } from '../../master/api.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { Limits } from '../../transfer/limits.js';
import { Moves } from '../moves.js';
import type { Place } from '../session.js';
import { statusError } from '../status.js';
import type { MasterLink } from './link.js';
import type { LentSegments } from './segments.js';
import { memoryReplica, type WireReplica } from './wire.js';

/** As many as stock clients fetch at once. */
const FETCHED = 16n;
/** For one task, its calls and its bytes. */
const TASK_MS = 30_000;
/** Mooncake's TaskType and TaskStatus. */
const COPY = 0;
const MOVE = 1;
const FAILED = 2;
const SUCCEEDED = 3;

interface Task {
  readonly key: Uint8Array;
  readonly tenant: string;
  readonly source: string;
  readonly targets: readonly string[];
}

export class LentTasks {
  readonly #link: MasterLink;
  readonly #client: Uuid;
  readonly #lent: LentSegments;
  readonly #place: (replica: Replica) => Place | Promise<Place>;
  #running?: Promise<void>;
  #left = false;

  constructor(link: MasterLink, client: Uuid, lent: LentSegments, place: (replica: Replica) => Place | Promise<Place>) {
    this.#link = link;
    this.#client = client;
    this.#lent = lent;
    this.#place = place;
  }

  /** Begins what there is to do, unless it is at it. Never throws: what is not reported in time has failed to the master. */
  start(): void {
    if (this.#left || this.#running || this.#lent.all.length === 0) return;
    this.#running = this.#work()
      .catch(() => {})
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** No more tasks; resolves when none is under way. */
  async leave(): Promise<void> {
    this.#left = true;
    await this.#running;
  }

  async #work(): Promise<void> {
    const limits = { timeoutMs: TASK_MS };
    const answer = await this.#link.call(METHODS.FetchTasks, { client: this.#client, count: FETCHED }, limits);
    if (!answer.ok) return;
    for (const { id, type, payload } of answer.value) {
      let [state, message] = [SUCCEEDED, ''];
      try {
        await this.#run(type, parse(payload), limits);
      } catch (error) {
        [state, message] = [FAILED, error instanceof MooncakeError ? error.message : String(error)];
      }
      const end = { id, state, message };
      await this.#link.call(METHODS.MarkTaskToComplete, { client: this.#client, end }, limits);
    }
  }

  async #run(type: number, task: Task, limits: Limits): Promise<void> {
    if (this.#left) throw errors.closed('the store');
    if (type !== COPY && type !== MOVE) throw errors.notSupported(`a task of type ${type}`, 'it copies and moves');
    const { key, tenant, source, targets } = task;
    const client = this.#client;
    const what = { client, key, tenant, source };
    const name = Buffer.from(key).toString();
    const plan =
      type === COPY
        ? await this.#link.call(METHODS.CopyStart, { ...what, targets: [...targets] }, limits)
        : await this.#link.call(METHODS.MoveStart, { ...what, target: targets[0] }, limits);
    if (!plan.ok) throw statusError(plan.error, name, 'the master does not begin the task');
    const written = 'targets' in plan.value ? plan.value.targets : plan.value.target ? [plan.value.target] : [];
    const call = { client, key, tenant };
    try {
      await this.#copy(plan.value.source, written, limits);
    } catch (error) {
      await this.#link.call(type === COPY ? METHODS.CopyRevoke : METHODS.MoveRevoke, call, limits);
      throw error;
    }
    const ended = await this.#link.call(type === COPY ? METHODS.CopyEnd : METHODS.MoveEnd, call, limits);
    if (!ended.ok) throw statusError(ended.error, name, 'the master does not take the copies');
  }

  async #copy(from: WireReplica, to: readonly WireReplica[], { timeoutMs }: Limits): Promise<void> {
    const source = memoryReplica(from);
    if (!source) throw errors.segment('source', '', 'is not in memory');
    const { segment, memory, offset } = this.#lent.origin(source);
    const { size } = source;
    const moves = new Moves();
    for (const one of to) {
      const target = memoryReplica(one);
      if (target?.size !== size) throw errors.segment('target', target?.size, `is not of ${size} bytes in memory`);
      const place = await this.#place(target);
      if (place.peer) moves.of(place.peer).push(segment, offset, place.segment, place.offset, size);
      else place.memory.write(place.offset, memory.bytes.subarray(offset, offset + size));
    }
    const failures = await moves.run((peer, descriptors) => peer.write(descriptors, { timeoutMs }));
    for (const error of failures.values()) throw error;
  }
}

/** The JSON that the master writes. Throws ERR_PROTOCOL. */
function parse(payload: string): Task {
  try {
    const { key, tenant_id: tenant, source, target, targets = [target] } = JSON.parse(payload);
    const texts = [key, tenant, source, ...targets];
    if (targets.length > 0 && texts.every((each) => typeof each === 'string')) {
      return { key: Buffer.from(key), tenant, source, targets };
    }
  } catch {}
  throw errors.protocol('a task that says not what to copy where', payload.slice(0, 200));
}
