/**
 * A contender is a process that is asked to move blocks and says how long each batch took: ours (initiator.ts) and other
 * systems' (bench/peers/*.py) alike, so that all are measured by the same schedule. One JSON line each way on its standard
 * streams. A contender that is silent is killed with its process group and says so from then on; one that is not asked
 * is stopped, since some poll while they wait.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { errors, type MooncakeError } from '../../core/errors.js';

export interface Question {
  op: 'read' | 'write';
  /** Bytes of a block, and blocks of a batch. */
  block: number;
  count: number;
  /** Batches, each timed by itself. */
  runs: number;
  /** One block at a time in place of a batch. */
  single?: boolean;
  /** For ours: the way, and whether what arrives is compared with the sender's checksum. */
  lane?: string;
  verify?: 'full' | 'off';
}

export interface Answer {
  nanoseconds: number[];
  /** Ours: bytes whose checksum was compared, of all that were moved. */
  verifiedShare?: number;
}

export interface DriverOptions {
  name: string;
  command: string;
  args: readonly string[];
  env?: NodeJS.ProcessEnv;
  /** Milliseconds until it says that it is ready. */
  startMs?: number;
  /** Stop it while it is not asked. */
  stopIdle?: boolean;
  signal?: AbortSignal;
}

interface Waiting {
  resolve(line: Record<string, unknown>): void;
  reject(error: MooncakeError): void;
}

export class Driver {
  readonly name: string;
  /** What it said when it was ready. */
  ready: Record<string, unknown> = {};
  readonly #child: ChildProcess;
  readonly #group: boolean;
  readonly #stopIdle: boolean;
  readonly #complaints: string[] = [];
  readonly #ended: Promise<void>;
  #waiting?: Waiting;
  #failed?: MooncakeError;

  private constructor({ name, command, args, env, stopIdle, signal }: DriverOptions) {
    this.name = name;
    this.#group = process.platform !== 'win32';
    this.#stopIdle = stopIdle === true && this.#group;
    // A group of its own: what it has started ends with it.
    const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: this.#group });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()));
    child.stdin.on('error', () => {});
    child.on('error', (error) => this.#fail(errors.peer(name, error.message, error)));
    child.on('exit', (code, by) => this.#fail(errors.peer(name, `its process ended (${by ?? code})${this.#why()}`)));
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.#complaints.push(line);
      if (this.#complaints.length > 20) this.#complaints.shift();
    });
    createInterface({ input: child.stdout }).on('line', (line) => this.#heard(line));
    const abort = () => this.#fail(errors.aborted(signal?.reason));
    signal?.addEventListener('abort', abort, { once: true });
    this.#ended.then(() => signal?.removeEventListener('abort', abort));
  }

  /** Starts a contender. Throws ERR_PEER where it says why it cannot, ERR_TIMEOUT, ERR_ABORTED. */
  static async start(options: DriverOptions): Promise<Driver> {
    if (options.signal?.aborted) throw errors.aborted(options.signal.reason);
    const driver = new Driver(options);
    try {
      driver.ready = await driver.#line(options.startMs ?? 30_000);
    } catch (error) {
      await driver.close();
      throw error;
    }
    driver.#signal('SIGSTOP');
    return driver;
  }

  /** Throws ERR_PEER with what it says, or when it is gone; ERR_TIMEOUT, after which it is gone; ERR_ABORTED. */
  async ask(question: Question, timeoutMs = 60_000): Promise<Answer> {
    if (this.#failed) throw this.#failed;
    this.#signal('SIGCONT');
    try {
      const line = this.#line(timeoutMs);
      this.#child.stdin?.write(`${JSON.stringify(question)}\n`);
      return (await line) as unknown as Answer;
    } finally {
      this.#signal('SIGSTOP');
    }
  }

  /** Ends its processes. Idempotent. */
  async close(): Promise<void> {
    this.#signal('SIGCONT');
    this.#child.stdin?.end();
    const patience = setTimeout(() => this.#kill(), 5_000);
    await this.#ended;
    clearTimeout(patience);
  }

  #line(timeoutMs: number): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      if (this.#failed) return reject(this.#failed);
      const timer = setTimeout(() => this.#fail(errors.timeout(`an answer of ${this.name}`, timeoutMs)), timeoutMs);
      const settle = () => {
        clearTimeout(timer);
        this.#waiting = undefined;
      };
      this.#waiting = {
        resolve: (line) => {
          settle();
          if ('error' in line) reject(errors.peer(this.name, String(line.error)));
          else resolve(line);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      };
    });
  }

  #heard(text: string): void {
    let line: unknown;
    try {
      line = JSON.parse(text);
    } catch {
      line = undefined;
    }
    if (typeof line === 'object' && line !== null) this.#waiting?.resolve(line as Record<string, unknown>);
    else this.#fail(errors.protocol(`${this.name} said what is no answer`, text));
  }

  /** The last error that it complained of, or the last of whatever it said. */
  #why(): string {
    const lines = this.#complaints.filter((line) => line.trim() !== '');
    const last = lines.findLast((line) => /error/i.test(line)) ?? lines.at(-1);
    return last === undefined ? '' : `: ${last.slice(0, 200)}`;
  }

  #fail(error: MooncakeError): void {
    if (this.#failed) return;
    this.#failed = error;
    this.#kill();
    this.#waiting?.reject(error);
  }

  #kill(): void {
    this.#send('SIGKILL');
  }

  #signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    if (this.#stopIdle && !this.#failed) this.#send(name);
  }

  #send(name: NodeJS.Signals): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(this.#group ? -this.#child.pid : this.#child.pid, name);
    } catch {
      // Already gone.
    }
  }
}
