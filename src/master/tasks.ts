/**
 * The queue of copy and move tasks, as Mooncake's master has it: a task belongs to one client, which fetches it, carries it
 * out with the calls of copies.ts and reports how it ended. Tasks that are not fetched, or not reported, in time have
 * failed; the last of those that have ended are remembered.
 *
 *   submit ─► pending ─► fetch ─► processing ─► complete ─► success, failed ─► forgotten
 */
import { integer } from '../core/check.js';
import type { Outcome, Status, Uuid } from './api.js';
import { refuse } from './refusal.js';
import { STATUS } from './status.js';

/** Numbers of Mooncake's TaskType and TaskStatus. */
export const TASK_TYPE = { copy: 0, move: 1 } as const;
export const TASK_STATE = { pending: 0, processing: 1, failed: 2, success: 3 } as const;

type TaskState = (typeof TASK_STATE)[keyof typeof TASK_STATE];

export interface Task {
  readonly id: Uuid;
  readonly type: (typeof TASK_TYPE)[keyof typeof TASK_TYPE];
  /** JSON: what is to be done. */
  readonly payload: string;
  readonly client: Uuid;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  updatedMs: number;
  state: TaskState;
  /** Why it failed, or what its client said. */
  message: string;
}

/** Defaults: the stock master's. */
export interface TaskOptions {
  /** Tasks that have ended and are remembered. Default 10,000. */
  maxFinishedTasks?: number;
  /** Tasks that wait for their client; more are refused. Default 10,000. */
  maxPendingTasks?: number;
  /** Tasks that clients are at; more are not given out. Default 10,000. */
  maxProcessingTasks?: number;
  /** How long a task may wait, in ms; 0: for ever. Default 300,000. */
  pendingTaskMs?: number;
  /** How long its client may be at it, in ms; 0: for ever. Default 300,000. */
  processingTaskMs?: number;
  /** How often a client tries a task for which there is no space. Default 10. */
  maxTaskRetries?: number;
}

const MOST = 2 ** 31 - 1;

interface Entry extends Task {
  /** By the queue's clock. */
  since: number;
}

export class TaskQueue {
  readonly #options: Required<TaskOptions>;
  readonly #now: () => number;
  readonly #tasks = new Map<Uuid, Entry>();
  /** Each in the order in which they came to be in that state. */
  readonly #pending = new Set<Entry>();
  readonly #processing = new Set<Entry>();
  readonly #finished = new Set<Entry>();
  readonly #waiting = new Map<Uuid, Set<Entry>>();

  /** `now`: milliseconds that never run backwards. @throws ERR_INVALID_ARGUMENT naming the option */
  constructor(now: () => number, options: TaskOptions = {}) {
    const whole = (name: keyof TaskOptions, otherwise: number) => integer(name, options[name] ?? otherwise, 0, MOST);
    this.#now = now;
    this.#options = {
      maxFinishedTasks: whole('maxFinishedTasks', 10_000),
      maxPendingTasks: whole('maxPendingTasks', 10_000),
      maxProcessingTasks: whole('maxProcessingTasks', 10_000),
      pendingTaskMs: whole('pendingTaskMs', 300_000),
      processingTaskMs: whole('processingTaskMs', 300_000),
      maxTaskRetries: whole('maxTaskRetries', 10),
    };
  }

  get maxRetries(): number {
    return this.#options.maxTaskRetries;
  }

  /** How many tasks are in each state. */
  get counts(): { pending: number; processing: number; finished: number } {
    return { pending: this.#pending.size, processing: this.#processing.size, finished: this.#finished.size };
  }

  get(id: Uuid): Readonly<Task> | undefined {
    return this.#tasks.get(id);
  }

  /** -1401: as many as may be are waiting. */
  submit(client: Uuid, type: Task['type'], payload: string): Outcome<Uuid> {
    const { maxPendingTasks } = this.#options;
    if (this.#pending.size >= maxPendingTasks) {
      return refuse(STATUS.taskLimit, `${maxPendingTasks} tasks are waiting already`);
    }
    const id = crypto.randomUUID().replaceAll('-', '');
    const createdMs = Date.now();
    const state = TASK_STATE.pending;
    const task = { id, type, payload, client, createdMs, updatedMs: createdMs, state, message: '', since: this.#now() };
    this.#tasks.set(id, task);
    this.#pending.add(task);
    const waiting = this.#waiting.get(client);
    if (waiting) waiting.add(task);
    else this.#waiting.set(client, new Set([task]));
    return { ok: true, value: id };
  }

  /** Up to so many tasks that wait for a client, the oldest first: it is at them from now on. */
  fetch(client: Uuid, count: number): Readonly<Task>[] {
    const fetched: Entry[] = [];
    for (const task of this.#waiting.get(client) ?? []) {
      if (fetched.length >= count || this.#processing.size >= this.#options.maxProcessingTasks) break;
      this.#leave(task);
      this.#change(task, TASK_STATE.processing, '');
      this.#processing.add(task);
      fetched.push(task);
    }
    return fetched;
  }

  /** Ends a task; again is ok, and changes nothing. -600 no state to end in, -1400 unknown, -601 another client's. */
  complete(client: Uuid, id: Uuid, state: number, message: string): Status {
    if (state !== TASK_STATE.success && state !== TASK_STATE.failed) return STATUS.invalidParams;
    const task = this.#tasks.get(id);
    if (!task) return STATUS.taskNotFound;
    if (task.client !== client) return STATUS.notOwner;
    this.#finish(task, state, message);
    return STATUS.ok;
  }

  /** Fails what was not fetched or not reported in time. */
  expire(): void {
    const { pendingTaskMs, processingTaskMs } = this.#options;
    this.#expire(this.#pending, pendingTaskMs, 'pending timeout');
    this.#expire(this.#processing, processingTaskMs, 'processing timeout');
  }

  /** Fails the tasks of a client that is gone. */
  forget(client: Uuid): void {
    for (const tasks of [this.#pending, this.#processing]) {
      for (const task of tasks) if (task.client === client) this.#finish(task, TASK_STATE.failed, 'client lost');
    }
  }

  #expire(tasks: Set<Entry>, after: number, message: string): void {
    if (after === 0) return;
    const since = this.#now() - after;
    for (const task of tasks) {
      if (task.since >= since) break;
      this.#finish(task, TASK_STATE.failed, message);
    }
  }

  #finish(task: Entry, state: TaskState, message: string): void {
    if (this.#finished.has(task)) return;
    this.#leave(task);
    this.#change(task, state, message);
    this.#finished.add(task);
    for (const oldest of this.#finished) {
      if (this.#finished.size <= this.#options.maxFinishedTasks) break;
      this.#finished.delete(oldest);
      this.#tasks.delete(oldest.id);
    }
  }

  #change(task: Entry, state: TaskState, message: string): void {
    task.state = state;
    task.message = message;
    task.updatedMs = Date.now();
    task.since = this.#now();
  }

  #leave(task: Entry): void {
    this.#processing.delete(task);
    if (!this.#pending.delete(task)) return;
    const waiting = this.#waiting.get(task.client);
    waiting?.delete(task);
    if (waiting?.size === 0) this.#waiting.delete(task.client);
  }
}
