/**
 * Tasks that the master has for whoever lends memory to its cluster: objects that lie here are copied or moved to segments of
 * others (src/master/tasks.ts). They are fetched about once a second; bytes pass through windows of staging memory, and the
 * master offers what was written when we have said that it is complete.
 */
import { errors } from '../../core/errors.js';
import type { Replica, Uuid } from '../../master/api.js';
import { STATUS } from '../../master/status.js';
import { TASK_STATE, TASK_TYPE } from '../../master/tasks.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import { Limits } from '../batch.js';
import type { StoreContext } from '../context.js';
import { Moves } from '../moves.js';
import type { Place, Session } from '../session.js';
import { type Staging, WINDOW_BYTES, type Window } from '../staging.js';
import { Tasks } from '../tasks.js';
import type { MasterLink } from './link.js';
import { statusOf } from './metadata.js';
import { started } from './wire.js';

/** Between two looks for tasks, and between attempts where there is no space. */
const POLL_MS = 1000;
/** Tasks fetched at once, and carried out at once. */
const FETCHED = 16n;
const AT_ONCE = 2;
/** A call to the master, and all that is done for a task. */
const ANSWER_MS = 3000;
const TASK_MS = 120_000;

/** What a runner needs of the cluster that it works for. */
export interface TaskCluster {
  readonly client: Uuid;
  readonly staging: Staging;
  /** Ends when the master has forgotten what it said. */
  session(): Session & { readonly ended: AbortSignal };
  place(replica: Replica): Place | Promise<Place>;
  context(tenant: string): StoreContext;
}

interface Fetched {
  readonly id: Uuid;
  readonly type: number;
  readonly payload: string;
  readonly maxRetries: number;
}

/** What a task's payload says. */
interface Job {
  readonly kind: 'copy' | 'move';
  readonly key: Uint8Array;
  readonly tenant: string;
  readonly source: string;
  readonly targets: readonly string[];
  /** Of copies that the master began by itself. */
  readonly task: Uuid;
  readonly epoch: bigint;
}

export class TaskRunner {
  readonly #cluster: TaskCluster;
  readonly #link: MasterLink;
  readonly #abort = new AbortController();
  #timer?: NodeJS.Timeout;
  #round: Promise<void> = Promise.resolve();

  constructor(cluster: TaskCluster, link: MasterLink) {
    this.#cluster = cluster;
    this.#link = link;
  }

  start(): void {
    if (this.#abort.signal.aborted) return;
    this.#timer = setTimeout(() => {
      // A master that does not answer is the business of pings.
      this.#round = this.#poll()
        .catch(() => {})
        .finally(() => this.start());
    }, POLL_MS).unref();
  }

  /** Ends what is under way; resolves when it touches no memory any more. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#abort.abort(errors.closed('the store'));
    await this.#round;
  }

  async #poll(): Promise<void> {
    const { client } = this.#cluster;
    const answer = await this.#link.call(METHODS.FetchTasks, { client, count: FETCHED }, { timeoutMs: ANSWER_MS });
    if (!answer.ok || answer.value.length === 0) return;
    const tasks = new Tasks(AT_ONCE);
    for (const task of answer.value) await tasks.start(() => this.#carryOut(task));
    await tasks.ended();
  }

  async #carryOut(task: Fetched): Promise<void> {
    let [state, message]: [number, string] = [TASK_STATE.success, ''];
    try {
      const status = await this.#attempts(jobOf(task), task.maxRetries);
      if (status !== STATUS.ok) [state, message] = [TASK_STATE.failed, `status ${status}`];
    } catch (error) {
      [state, message] = [TASK_STATE.failed, (error as Error).message];
    }
    const end = { id: task.id, state, message };
    const { client } = this.#cluster;
    await this.#link.call(METHODS.MarkTaskToComplete, { client, end }, { timeoutMs: ANSWER_MS }).catch(() => {});
  }

  /** Where there is no space, there may be soon. */
  async #attempts(job: Job, retries: number): Promise<number> {
    for (let left = retries; ; left--) {
      const status = await this.#attempt(job);
      if (status !== STATUS.noSpace || left <= 0 || this.#abort.signal.aborted) return status;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #attempt(job: Job): Promise<number> {
    const session = this.#cluster.session();
    const answer = await this.#begin(job);
    if (!answer.ok) return answer.error;
    const { source, targets } = answer.value;
    if (source.descriptor.kind !== 'memory') return this.#finish(job, 'Revoke', STATUS.invalidParams);
    const size = Number(source.descriptor.value.buffer.size);
    const plan = started({ ok: true, value: [source, ...targets] }, size);
    if (!plan.ok || plan.value.length !== 1 + targets.length) {
      return this.#finish(job, 'Revoke', STATUS.invalidParams);
    }
    const [from, ...to] = plan.value;
    const failure = await this.#transfer(session, job.tenant, from, to).catch((error: Error) => error);
    if (failure === undefined) return this.#finish(job, 'End', STATUS.ok);
    // Whether what was being written still arrives, nobody can say: the master keeps its room back until it does not.
    if (failure instanceof WriteFailed) throw failure.cause;
    await this.#finish(job, 'Revoke', STATUS.ok);
    throw failure;
  }

  async #begin({ kind, key, tenant, source, targets, task, epoch }: Job) {
    const { client } = this.#cluster;
    const limits = { timeoutMs: ANSWER_MS };
    if (kind === 'copy') {
      const call = { client, key, tenant, source, targets };
      if (task === NO_LEASE) return this.#link.call(METHODS.CopyStart, call, limits);
      return this.#link.call(METHODS.DynamicReplicaCopyStart, { ...call, task, epoch }, limits);
    }
    const answer = await this.#link.call(
      METHODS.MoveStart,
      { client, key, tenant, source, target: targets[0] },
      limits,
    );
    if (!answer.ok) return answer;
    const { source: from, target } = answer.value;
    return { ok: true, value: { source: from, targets: target ? [target] : [] } } as const;
  }

  /** Ends or revokes; its status, or else the one that is given. */
  async #finish({ kind, key, tenant, task, epoch }: Job, how: 'End' | 'Revoke', otherwise: number): Promise<number> {
    const call = { client: this.#cluster.client, key, tenant };
    const limits = { timeoutMs: ANSWER_MS };
    const answer =
      kind === 'move'
        ? await this.#link.call(METHODS[`Move${how}`], call, limits)
        : task === NO_LEASE
          ? await this.#link.call(METHODS[`Copy${how}`], call, limits)
          : await this.#link.call(METHODS[`DynamicReplicaCopy${how}`], { ...call, task, epoch }, limits);
    return statusOf(answer) || otherwise;
  }

  /** Copies an object's bytes from one place to others, a window at a time. */
  async #transfer(
    { ended }: { ended: AbortSignal },
    tenant: string,
    from: Replica,
    to: readonly Replica[],
  ): Promise<undefined> {
    if (to.length === 0) return;
    const { staging } = this.#cluster;
    const { signal } = this.#abort;
    const limits = new Limits({ signal, timeoutMs: TASK_MS }, this.#cluster.context(tenant));
    const source = await limits.within(this.#cluster.place(from));
    const targets = await Promise.all(to.map((replica) => limits.within(this.#cluster.place(replica))));
    const window = await staging.take(limits);
    try {
      for (let offset = 0; offset < from.size; offset += WINDOW_BYTES) {
        const length = Math.min(WINDOW_BYTES, from.size - offset);
        await read(source, offset, length, window, limits);
        // A master that was restarted may have given the room to others.
        ended.throwIfAborted();
        await write(targets, offset, length, window, limits, ended);
      }
    } finally {
      window.release();
    }
  }
}

/** A write that did not end well. */
class WriteFailed extends Error {
  constructor(override readonly cause: Error) {
    super(cause.message);
  }
}

const NO_LEASE: Uuid = '0'.repeat(32);

async function read(source: Place, offset: number, length: number, window: Window, limits: Limits): Promise<void> {
  const at = source.offset + offset;
  if (source.memory) {
    if (source.memory.retired) throw errors.segment('source', source.replica, 'was taken away');
    window.memory.write(window.offset, source.memory.bytes.subarray(at, at + length));
    return;
  }
  const moves = new Moves();
  moves.of(source.peer).push(source.segment, at, window.segment, window.offset, length);
  const failures = await moves.run((peer, descriptors) => peer.read(descriptors, limits.rest()));
  for (const failure of failures.values()) throw failure;
}

async function write(
  targets: readonly Place[],
  offset: number,
  length: number,
  window: Window,
  limits: Limits,
  ended: AbortSignal,
): Promise<void> {
  const moves = new Moves();
  for (const target of targets) {
    const at = target.offset + offset;
    if (target.peer) {
      moves.of(target.peer).push(window.segment, window.offset, target.segment, at, length);
    } else {
      if (target.memory.retired) throw errors.segment('target', target.replica, 'was taken away');
      target.memory.write(at, window.memory.bytes.subarray(window.offset, window.offset + length));
    }
  }
  if (moves.empty) return;
  const failures = await limits.move(ended, (rest) => moves.run((peer, descriptors) => peer.write(descriptors, rest)));
  for (const failure of failures.values()) throw new WriteFailed(failure as Error);
}

/** Throws ERR_PROTOCOL for a payload that says no such thing. */
function jobOf({ type, payload }: Fetched): Job {
  const refuse = () => errors.protocol('the master gave a task that is none', payload.slice(0, 200));
  let said: Record<string, unknown>;
  try {
    said = JSON.parse(payload);
  } catch {
    throw refuse();
  }
  const { key, tenant_id: tenant = 'default', source } = said;
  const targets = type === TASK_TYPE.move ? [said.target] : said.targets;
  const isText = (value: unknown): value is string => typeof value === 'string';
  if (!isText(key) || !isText(tenant) || !isText(source) || !Array.isArray(targets) || !targets.every(isText)) {
    throw refuse();
  }
  if (type !== TASK_TYPE.copy && type !== TASK_TYPE.move) throw refuse();
  return {
    kind: type === TASK_TYPE.move ? 'move' : 'copy',
    key: Buffer.from(key),
    tenant,
    source,
    targets,
    task: leaseOf(payload),
    epoch: BigInt(/"dynamic_replication_version_epoch":(\d+)/.exec(payload)?.[1] ?? 0),
  };
}

/** Two halves of a u64 each: larger than numbers of JSON.parse are exact. */
function leaseOf(payload: string): Uuid {
  const half = (name: string) =>
    BigInt(new RegExp(`"dynamic_replication_lease_id_${name}":(\\d+)`).exec(payload)?.[1] ?? 0)
      .toString(16)
      .padStart(16, '0');
  return half('high') + half('low');
}
