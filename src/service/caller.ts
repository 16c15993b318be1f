/** Who is at the other end of a connection: its process, and the sessions that it has opened. */
import { integer } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { type Fields, MOST } from './arguments.js';
import type { Engine, Engines } from './engines.js';
import { SchedulerSession } from './scheduler-session.js';
import { WorkerSession } from './worker-session.js';

interface Opened {
  readonly engine: Engine;
  readonly session: SchedulerSession | WorkerSession;
}

export class Caller {
  readonly #engines: Engines;
  readonly #opened = new Map<number, Opened>();
  /** By the kernel's word; where it cannot be asked, by the client's. */
  pid: number;
  greeted = false;
  ended = false;

  constructor(engines: Engines, pid: number) {
    this.#engines = engines;
    this.pid = pid;
  }

  get engines(): Engines {
    return this.#engines;
  }

  open(engine: Engine, session: SchedulerSession | WorkerSession): void {
    // Of runs that have ended the client has heard by now, or it would not open another.
    for (const [id, { engine: other }] of this.#opened) {
      if (other.ended !== undefined && other.id === engine.id) this.#opened.delete(id);
    }
    this.#opened.set(session.id, { engine, session });
  }

  /** The session that a call names. Throws ERR_STALE where its run is over, ERR_NOT_FOUND. */
  opened(args: Fields): Opened {
    const id = integer('session', args.session, 1, MOST);
    const found = this.#opened.get(id);
    if (found === undefined) {
      const why = `session ${id} is none of this connection's`;
      throw new MooncakeError('ERR_NOT_FOUND', why, { argument: 'session', value: id });
    }
    if (found.engine.ended !== undefined) throw found.engine.ended;
    return found;
  }

  scheduler(args: Fields): SchedulerSession {
    const { session } = this.opened(args);
    if (session instanceof SchedulerSession) return session;
    throw errors.invalidArgument('session', session.id, 'one of a scheduler half');
  }

  worker(args: Fields): WorkerSession {
    const { session } = this.opened(args);
    if (session instanceof WorkerSession) return session;
    throw errors.invalidArgument('session', session.id, 'one of a worker half');
  }

  /** The session that a failed call named, if there is one to tell. */
  told(args: unknown): SchedulerSession | WorkerSession | undefined {
    const { session } = (args ?? {}) as { session?: unknown };
    return typeof session === 'number' ? this.#opened.get(session)?.session : undefined;
  }

  /** Ends the runs of its sessions. Resolves when nothing of them is under way. */
  async end(why: string): Promise<void> {
    this.ended = true;
    await Promise.all([...this.#opened.values()].map(({ engine }) => this.#engines.end(engine, why)));
  }
}
