/**
 * A connection to a node service for callers that cannot wait in promises: an engine's scheduler asks and needs the answer in
 * the same turn. Calls in promises are there too, and both may be mixed. The accelerator's socket carries them; without it, a
 * thread of our own does.
 */
import { type ErrorCode, errors, MooncakeError } from '../core/errors.js';
import { loadAddon } from '../native/load.js';
import type { Channel, FromService } from './client-channel.js';
import { DirectChannel } from './client-direct.js';
import { ThreadChannel } from './client-threaded.js';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: MooncakeError): void;
}

export class Bridge {
  /** Resolves when the connection has ended: the service touches nothing for it any more. */
  readonly closed: Promise<void>;
  readonly #socket: string;
  readonly #channel: Channel;
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;
  #ending = false;
  #why: MooncakeError | undefined;
  #lost: MooncakeError | undefined;
  #resolveClosed!: () => void;

  /** Throws ERR_PEER where it is seen at once that no service listens. */
  constructor(socket: string) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const take = (message: FromService) => this.#take(message);
    const { addon } = loadAddon();
    this.#channel = addon ? new DirectChannel(addon, socket, take) : new ThreadChannel(socket, take);
  }

  /** Why there is no connection any more. */
  get lost(): MooncakeError | undefined {
    return this.#lost;
  }

  /** Throws what the service answers; ERR_PEER where it is gone, ERR_TIMEOUT. */
  call(op: string, args: object, timeoutMs: number): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    const answer = new Promise((resolve, reject) => {
      const id = this.#post(op, args, { resolve, reject });
      timer = setTimeout(() => {
        this.#forget(id);
        reject(this.#late(op, timeoutMs));
      }, timeoutMs);
    });
    return answer.finally(() => clearTimeout(timer));
  }

  /** The same, within this turn. */
  callNow(op: string, args: object, timeoutMs: number): unknown {
    let answer: { result: unknown } | { error: MooncakeError } | undefined;
    const id = this.#post(op, args, {
      resolve: (result) => {
        answer = { result };
      },
      reject: (error) => {
        answer = { error };
      },
    });
    const end = performance.now() + timeoutMs;
    while (answer === undefined) {
      const left = end - performance.now();
      if (left <= 0) {
        this.#forget(id);
        throw this.#late(op, timeoutMs);
      }
      this.#channel.wait(left);
    }
    if ('error' in answer) throw answer.error;
    return answer.result;
  }

  /** A call that wants no answer. */
  send(op: string, args: object): void {
    if (this.#lost !== undefined) throw this.#lost;
    this.#channel.post([0, op, args]);
  }

  /** Ends our side; `closed` resolves when the service has ended its own. Idempotent. */
  end(): void {
    if (this.#lost !== undefined) return;
    this.#ending = true;
    this.#channel.ref();
    this.#channel.end();
  }

  /** Ends the connection at once. */
  async destroy(): Promise<void> {
    this.#lose(errors.closed(`the connection to the service at ${this.#socket}`));
    await this.#channel.destroy();
  }

  #late(op: string, timeoutMs: number): MooncakeError {
    return errors.timeout(`${op} of the service at ${this.#socket}`, timeoutMs);
  }

  #post(op: string, args: object, waiting: Waiting): number {
    if (this.#lost !== undefined) {
      waiting.reject(this.#lost);
      return 0;
    }
    const id = ++this.#last;
    this.#channel.post([id, op, args]);
    this.#waiting.set(id, waiting);
    this.#channel.ref();
    return id;
  }

  #take([id, error, result]: FromService): void {
    const failed = error && new MooncakeError(error.code as ErrorCode, error.message);
    // An answer to no call says why the connection is about to end.
    if (id === 0) this.#why = failed ?? undefined;
    if (id < 0) this.#lose(this.#why ?? failed ?? errors.peer(this.#socket, 'has ended the connection'));
    if (id <= 0) return;
    const waiting = this.#waiting.get(id);
    this.#forget(id);
    if (failed) waiting?.reject(failed);
    else waiting?.resolve(result);
  }

  #forget(id: number): void {
    this.#waiting.delete(id);
    if (this.#waiting.size === 0 && !this.#ending) this.#channel.unref();
  }

  #lose(error: MooncakeError): void {
    this.#lost ??= error;
    this.#resolveClosed();
    this.#channel.unref();
    for (const [id, { reject }] of [...this.#waiting]) {
      this.#forget(id);
      reject(this.#lost);
    }
  }
}
