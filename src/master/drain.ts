/**
 * Drain jobs: the objects in some segments are moved to others by tasks of the clients that lend the former, a few at a
 * time, while they stay readable; nothing new is placed there. A segment that is empty is `drained`: its client may unmount
 * it, and nothing is lost. `tick` is to be called about twice a second; passes over all objects are made in slices.
 *
 *   created ─► running ─► succeeded (all segments empty), failed (only units are left that failed three times), canceled
 *
 * A unit is the copy of one object in one segment. Blocked are those that cannot be moved now: they are being put or copied,
 * no other segment takes anything new, or no task can name their key.
 */
import { integer } from '../core/check.js';
import type { Outcome, SegmentFigures, Status, Uuid } from './api.js';
import type { Located } from './copies.js';
import { refuse } from './refusal.js';
import type { MetadataService } from './service.js';
import { STATUS } from './status.js';
import type { TaskRequests } from './task-requests.js';
import { TASK_STATE, type TaskQueue } from './tasks.js';

/** Numbers of Mooncake's JobStatus. */
export const JOB_STATE = { created: 0, running: 2, succeeded: 3, failed: 4, canceled: 5 } as const;

export interface DrainRequest {
  /** Names of the segments to empty. */
  readonly segments: readonly string[];
  /** Names of those to move to. Default: any, the emptiest first. */
  readonly targets?: readonly string[];
  /** Tasks at once. Default 4. */
  readonly maxConcurrency?: number;
}

export interface DrainJob {
  readonly id: Uuid;
  readonly segments: readonly string[];
  state: (typeof JOB_STATE)[keyof typeof JOB_STATE];
  message: string;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  updatedMs: number;
  succeeded: number;
  /** Attempts that failed. */
  failed: number;
  /** Units that were blocked in the last pass. */
  blocked: number;
  active: number;
  migratedBytes: number;
}

interface Unit {
  readonly name: string;
  readonly id: number;
  readonly source: string;
  readonly size: number;
}

interface Job extends DrainJob {
  readonly names: ReadonlySet<string>;
  readonly targets: readonly string[];
  readonly maxConcurrency: number;
  /** By task. */
  readonly tasks: Map<Uuid, Unit>;
  readonly failures: Map<string, number>;
  /** The pass over all objects: those found and not looked at, where to go on, and what was met. */
  found: number[];
  cursor: number;
  isPassing: boolean;
  met: { blocked: number; exhausted: number; other: number };
}

/** Objects of one slice of a pass, and milliseconds of work after which the event loop gets a turn. */
const SLICE = 512;
const SLICE_MS = 5;
const MAX_FAILURES = 3;
const MAX_CONCURRENCY = 2 ** 32 - 1;
/** Jobs that have ended and are remembered. */
const MAX_ENDED = 1000;

export class Drains {
  readonly #service: MetadataService;
  readonly #queue: TaskQueue;
  readonly #requests: TaskRequests;
  readonly #jobs = new Map<Uuid, Job>();
  #isTicking = false;

  constructor(service: MetadataService, queue: TaskQueue, requests: TaskRequests) {
    this.#service = service;
    this.#queue = queue;
    this.#requests = requests;
  }

  /**
   * -600 no or repeated segments, targets among them, no concurrency; -101 unknown ones; -1010 a segment that leaves or is
   * drained.
   */
  create({ segments, targets = [], maxConcurrency = 4 }: DrainRequest): Outcome<Uuid> {
    integer('maxConcurrency', maxConcurrency, 0, MAX_CONCURRENCY);
    const names = new Set(segments);
    if (names.size === 0 || names.size < segments.length || maxConcurrency === 0) {
      return refuse(STATUS.invalidParams, 'a drain is of different segments, with a concurrency from 1');
    }
    const unfit = this.#unfit(segments) ?? (targets.some((name) => names.has(name)) ? ONE : this.#unfit(targets));
    if (unfit) return unfit;
    for (const name of names) this.#service.setDrain(name, 'draining');
    const now = Date.now();
    const job: Job = {
      id: crypto.randomUUID().replaceAll('-', ''),
      segments: [...segments],
      names,
      targets,
      maxConcurrency,
      state: JOB_STATE.created,
      message: 'Drain job created',
      createdMs: now,
      updatedMs: now,
      succeeded: 0,
      failed: 0,
      blocked: 0,
      active: 0,
      migratedBytes: 0,
      tasks: new Map(),
      failures: new Map(),
      found: [],
      cursor: 0,
      isPassing: false,
      met: { blocked: 0, exhausted: 0, other: 0 },
    };
    this.#jobs.set(job.id, job);
    this.#forgetOldest();
    return { ok: true, value: job.id };
  }

  get(id: Uuid): Readonly<DrainJob> | undefined {
    return this.#jobs.get(id);
  }

  /** Its segments take objects again. -1402 unknown; -1010: it has ended, or a task of it is under way. */
  cancel(id: Uuid): Status {
    const job = this.#jobs.get(id);
    if (!job) return STATUS.jobNotFound;
    if (hasEnded(job) || job.tasks.size > 0) return STATUS.unavailable;
    this.#end(job, JOB_STATE.canceled, 'Drain job canceled');
    return STATUS.ok;
  }

  /** Sees what has become of tasks, and begins more. */
  async tick(): Promise<void> {
    if (this.#isTicking) return;
    this.#isTicking = true;
    try {
      for (const job of this.#jobs.values()) {
        if (hasEnded(job)) continue;
        this.#refresh(job);
        if (!this.#isDone(job)) await this.#advance(job);
      }
    } finally {
      this.#isTicking = false;
    }
  }

  #unfit(names: readonly string[]): Outcome<never> | undefined {
    const segments = this.#service.segments();
    for (const wanted of names) {
      const named = segments.filter(({ name }) => name === wanted);
      if (named.length === 0) return refuse(STATUS.segmentNotFound, `no segment ${wanted}`);
      if (named.some(({ isLeaving }) => isLeaving)) return refuse(STATUS.unavailable, `${wanted} is leaving`);
    }
    return undefined;
  }

  #refresh(job: Job): void {
    for (const [id, unit] of job.tasks) {
      const task = this.#queue.get(id);
      if (task && (task.state === TASK_STATE.pending || task.state === TASK_STATE.processing)) continue;
      job.tasks.delete(id);
      // What a client says is not taken for what is so.
      const remains = this.#service.copies.locate(unit.id, new Set([unit.source])) !== undefined;
      if (task?.state === TASK_STATE.success && !remains) {
        job.succeeded++;
        job.migratedBytes += unit.size;
        job.failures.delete(unit.name);
      } else {
        this.#fail(job, unit.name);
      }
    }
    job.active = job.tasks.size;
  }

  #fail(job: Job, unit: string): void {
    job.failed++;
    job.failures.set(unit, (job.failures.get(unit) ?? 0) + 1);
  }

  /** Marks the segments that are empty; whether the job has ended. */
  #isDone(job: Job): boolean {
    if (job.tasks.size > 0) return false;
    const left = this.#service.segments().filter(({ name }) => job.names.has(name));
    const full = new Set(left.filter(({ objects, keptBack }) => objects + keptBack > 0).map(({ name }) => name));
    for (const { name, drain } of left) {
      if (drain === 'draining' && !full.has(name)) this.#service.setDrain(name, 'drained');
    }
    if (full.size > 0) return false;
    this.#end(job, JOB_STATE.succeeded, 'Drain job finished successfully');
    return true;
  }

  /** Begins tasks for what a pass over all objects finds, until there are as many as may be or the pass ends. */
  async #advance(job: Job): Promise<void> {
    if (!job.isPassing) {
      Object.assign(job, { isPassing: true, cursor: 0, found: [], met: { blocked: 0, exhausted: 0, other: 0 } });
      await this.#find(job);
    }
    const utilization = this.#utilization(job);
    while (job.isPassing && !hasEnded(job) && job.tasks.size < job.maxConcurrency) {
      const id = job.found.pop();
      if (id !== undefined) {
        if (!this.#begin(job, id, utilization)) break;
      } else if (job.cursor !== 0) {
        await this.#find(job);
      } else {
        job.isPassing = false;
      }
    }
    if (hasEnded(job)) return;
    job.state = JOB_STATE.running;
    job.message = 'Drain job running';
    job.updatedMs = Date.now();
    job.active = job.tasks.size;
    job.blocked = Math.max(job.met.blocked, job.isPassing ? job.blocked : 0);
    const { blocked, exhausted, other } = job.met;
    if (!job.isPassing && job.tasks.size === 0 && exhausted > 0 && blocked + other === 0) {
      this.#end(job, JOB_STATE.failed, 'Drain job failed: unrecoverable units remain');
    }
  }

  /** Looks for more objects in the segments, from where the pass stands. */
  async #find(job: Job): Promise<void> {
    let slice = performance.now();
    do {
      const { ids, cursor } = this.#service.copies.scan(job.cursor, SLICE);
      for (const id of ids) if (this.#service.copies.locate(id, job.names)) job.found.push(id);
      job.cursor = cursor;
      if (performance.now() - slice < SLICE_MS) continue;
      await new Promise((resolve) => setImmediate(resolve));
      slice = performance.now();
    } while (job.cursor !== 0 && job.found.length === 0 && !hasEnded(job));
    job.found.reverse();
  }

  /** A task for a unit, if it can be moved now. False: no more tasks can be had for the time being. */
  #begin(job: Job, id: number, utilization: ReadonlyMap<string, number>): boolean {
    const unit = this.#service.copies.locate(id, job.names);
    if (!unit) return true;
    const name = `${id} ${unit.source}`;
    if ([...job.tasks.values()].some((active) => active.name === name)) {
      job.met.other++;
      return true;
    }
    if ((job.failures.get(name) ?? 0) >= MAX_FAILURES) {
      job.met.exhausted++;
      return true;
    }
    const target = unit.isBusy ? undefined : emptiest(unit, utilization);
    if (target === undefined) {
      job.met.blocked++;
      return true;
    }
    const task = this.#requests.move(unit.key, unit.tenant, unit.source, target);
    if (task.ok) {
      job.met.other++;
      job.tasks.set(task.value, { name, id, source: unit.source, size: unit.size });
      return true;
    }
    job.met.blocked++;
    if (task.status !== STATUS.taskLimit) return true;
    job.found.push(id);
    return false;
  }

  /** How full the segments are that objects may be moved to. */
  #utilization(job: Job): Map<string, number> {
    const takesMore = ({ isLeaving, isAbsent, name }: SegmentFigures) =>
      !isLeaving && !isAbsent && !job.names.has(name);
    const open = this.#service.segments().filter(takesMore);
    const wanted = job.targets.length === 0 ? open : open.filter(({ name }) => job.targets.includes(name));
    return new Map(wanted.map(({ name, usedBytes, capacityBytes }) => [name, usedBytes / capacityBytes]));
  }

  #end(job: Job, state: Job['state'], message: string): void {
    job.state = state;
    job.message = message;
    job.updatedMs = Date.now();
    job.active = job.tasks.size;
    job.found = [];
    job.failures.clear();
    if (state !== JOB_STATE.succeeded) for (const name of job.names) this.#service.setDrain(name, 'none');
  }

  #forgetOldest(): void {
    let ended = [...this.#jobs.values()].filter(hasEnded).length;
    for (const [id, job] of this.#jobs) {
      if (ended <= MAX_ENDED) return;
      if (!hasEnded(job)) continue;
      this.#jobs.delete(id);
      ended--;
    }
  }
}

const ONE = refuse(STATUS.invalidParams, 'segments to empty are no targets');

function hasEnded({ state }: DrainJob): boolean {
  return state >= JOB_STATE.succeeded;
}

/** The emptiest segment without a copy; where all have one, one of these: a move to it gives up the source alone. */
function emptiest(unit: Located, utilization: ReadonlyMap<string, number>): string | undefined {
  let best: string | undefined;
  for (const [name, used] of utilization) {
    if (unit.segments.includes(name)) continue;
    if (best === undefined || used < utilization.get(best)!) best = name;
  }
  return best ?? unit.segments.find((name) => utilization.has(name));
}
