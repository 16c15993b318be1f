/**
 * A connection to a node service for callers that cannot wait in promises: an engine's scheduler asks and needs the answer in
 * the same turn. A thread holds the socket; a waiting caller sleeps on a word of shared memory. Calls in promises are there
 * too, and both may be mixed.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { type ErrorCode, errors, MooncakeError } from '../core/errors.js';
import type { ClientThreadData, FromThread, ToThread } from './client-thread.js';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: MooncakeError): void;
}

export class Bridge {
  /** Resolves when the connection has ended: the service touches nothing for it any more. */
  readonly closed: Promise<void>;
  readonly #socket: string;
  readonly #thread: Worker;
  readonly #port: MessagePort;
  readonly #bell = new Int32Array(new SharedArrayBuffer(4));
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;
  #ending = false;
  #why: MooncakeError | undefined;
  #lost: MooncakeError | undefined;
  #resolveClosed!: () => void;

  constructor(socket: string) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData: ClientThreadData = { socket, port: port2, bell: this.#bell.buffer as SharedArrayBuffer };
    this.#thread = new Worker(new URL('./client-thread.js', import.meta.url), { workerData, transferList: [port2] });
    this.#thread.unref();
    this.#thread.on('error', (cause) => this.#lose(errors.peer(socket, `its client thread failed: ${cause.message}`)));
    port1.on('message', (message: FromThread) => this.#take(message));
    port1.unref();
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
      const rung = Atomics.load(this.#bell, 0);
      const received = receiveMessageOnPort(this.#port);
      if (received !== undefined) {
        this.#take(received.message);
        continue;
      }
      const left = end - performance.now();
      if (left <= 0) {
        this.#forget(id);
        throw this.#late(op, timeoutMs);
      }
      Atomics.wait(this.#bell, 0, rung, left);
    }
    if ('error' in answer) throw answer.error;
    return answer.result;
  }

  /** A call that wants no answer. */
  send(op: string, args: object): void {
    if (this.#lost !== undefined) throw this.#lost;
    this.#port.postMessage([0, op, args] satisfies ToThread);
  }

  /** Ends our side; `closed` resolves when the service has ended its own. Idempotent. */
  end(): void {
    if (this.#lost !== undefined) return;
    this.#ending = true;
    this.#port.ref();
    this.#port.postMessage(null satisfies ToThread);
  }

  /** Ends the connection at once. */
  async destroy(): Promise<void> {
    this.#lose(errors.closed(`the connection to the service at ${this.#socket}`));
    await this.#thread.terminate();
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
    this.#waiting.set(id, waiting);
    this.#port.ref();
    this.#port.postMessage([id, op, args] satisfies ToThread);
    return id;
  }

  #take([id, error, result]: FromThread): void {
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
    if (this.#waiting.size === 0 && !this.#ending) this.#port.unref();
  }

  #lose(error: MooncakeError): void {
    this.#lost ??= error;
    this.#resolveClosed();
    this.#port.unref();
    for (const [id, { reject }] of [...this.#waiting]) {
      this.#forget(id);
      reject(this.#lost);
    }
  }
}
