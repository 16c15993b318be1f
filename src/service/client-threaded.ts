/**
 * A channel without the accelerator: a thread (client-thread.ts) holds the socket, and a caller that waits sleeps on a word of
 * shared memory. Each call costs two wake-ups more than one by client-direct.ts.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { Channel, FromService, ToService } from './client-channel.js';
import type { ClientThreadData } from './client-thread.js';

export class ThreadChannel implements Channel {
  readonly #take: (message: FromService) => void;
  readonly #thread: Worker;
  readonly #port: MessagePort;
  readonly #bell = new Int32Array(new SharedArrayBuffer(4));

  constructor(path: string, take: (message: FromService) => void) {
    this.#take = take;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData: ClientThreadData = { socket: path, port: port2, bell: this.#bell.buffer as SharedArrayBuffer };
    this.#thread = new Worker(new URL('./client-thread.js', import.meta.url), { workerData, transferList: [port2] });
    this.#thread.unref();
    this.#thread.on('error', ({ message }) => {
      take([-1, { code: 'ERR_PEER', message: `the client thread for ${path} failed: ${message}` }, null]);
    });
    port1.on('message', take);
    port1.unref();
  }

  post(message: ToService): void {
    this.#port.postMessage(message);
  }

  wait(milliseconds: number): void {
    const rung = Atomics.load(this.#bell, 0);
    const received = receiveMessageOnPort(this.#port);
    if (received === undefined) Atomics.wait(this.#bell, 0, rung, milliseconds);
    else this.#take(received.message);
  }

  ref(): void {
    this.#port.ref();
  }

  unref(): void {
    this.#port.unref();
  }

  end(): void {
    this.#port.postMessage(null);
  }

  async destroy(): Promise<void> {
    await this.#thread.terminate();
  }
}
