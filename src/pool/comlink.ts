/**
 * The portable door: workers reached through comlink, be they Workers of a page, worker threads of Node or whatever
 * answers on a MessagePort. The worker's side is `expose` (workers/comlink.ts).
 */
import * as Comlink from 'comlink';
import { errors } from '../core/errors.js';
import type { Door } from './scheduler.js';
import type { Batch, Reply, WorkerSetup } from './wire.js';

/** What a worker exposes. */
export interface WorkerApi {
  open(setup: WorkerSetup): void;
  run(batch: Batch): Reply;
}

/** The part of Node's worker_threads.Worker that is used: it is an EventEmitter, where comlink wants an EventTarget. */
interface EmittingWorker {
  postMessage(message: unknown, transfer?: readonly unknown[]): void;
  // biome-ignore lint/suspicious/noExplicitAny: as Node declares it
  on(event: string, listener: (value: any) => void): unknown;
}

/** A Worker or MessagePort of the platform, or a Worker of node:worker_threads. */
export type WorkerEndpoint = Comlink.Endpoint | EmittingWorker;

/** The endpoint as an EventTarget. */
function asTarget(endpoint: WorkerEndpoint): Comlink.Endpoint {
  const { addEventListener, on } = (endpoint ?? {}) as Partial<Comlink.Endpoint & EmittingWorker>;
  if (typeof addEventListener !== 'function' && typeof on !== 'function') {
    throw errors.invalidArgument('open()', endpoint, 'a Worker or a MessagePort');
  }
  if ('addEventListener' in endpoint) return endpoint;
  return {
    postMessage: (message, transfer) => endpoint.postMessage(message, transfer),
    addEventListener: (type, listener) => {
      const hear = 'handleEvent' in listener ? listener.handleEvent.bind(listener) : listener;
      endpoint.on(type, (data) => hear({ type, data } as unknown as Event));
    },
    // comlink listens to a worker for as long as there is one.
    removeEventListener: () => {},
  };
}

/** One worker: its proxy, and the batches that only it can answer. comlink itself never notices that a worker died. */
class Connection {
  readonly pending = new Set<(error: unknown) => void>();
  readonly #endpoint: WorkerEndpoint;
  readonly #remote: Comlink.Remote<WorkerApi>;
  /** Whether it ever answered: only then is it worth a successor. */
  opened = false;
  dead = false;

  constructor(endpoint: WorkerEndpoint, setup: WorkerSetup, onDeath: (connection: Connection, why: string) => void) {
    this.#endpoint = endpoint;
    const target = asTarget(endpoint);
    const died = (event: unknown) => {
      if (this.dead) return;
      this.dead = true;
      const { type, message, data } = event as { type: string; message?: string; data?: unknown };
      onDeath(this, message ?? (data as Error)?.message ?? `worker sent '${type}'`);
      void this.end();
    };
    for (const type of ['error', 'messageerror', 'exit', 'close']) target.addEventListener(type, died as EventListener);
    this.#remote = Comlink.wrap<WorkerApi>(target);
    this.#remote.open(setup).then(
      () => {
        this.opened = true;
      },
      (error: Error) => died({ type: 'error', message: error.message }),
    );
  }

  run(batch: Batch): Promise<Reply> {
    return new Promise((resolve, reject) => {
      this.pending.add(reject);
      const lost = (cause: Error) => reject(errors.worker(cause.message, cause));
      this.#remote
        .run(batch)
        .then(resolve as (reply: unknown) => void, lost)
        .finally(() => this.pending.delete(reject));
    });
  }

  /** Ends the worker, or closes the port to it. */
  async end(): Promise<void> {
    this.dead = true;
    const endpoint = this.#endpoint as { terminate?(): unknown; close?(): void };
    if (endpoint.terminate) await endpoint.terminate();
    else endpoint.close?.();
  }
}

/** Opens `threads` workers by `open`; one that dies is opened again. */
export function openComlink(setup: WorkerSetup, threads: number, open: () => WorkerEndpoint): Door {
  let connections: Connection[] = [];
  const start = () => connections.push(new Connection(open(), setup, lose));
  function lose(lost: Connection, why: string): void {
    connections = connections.filter((connection) => connection !== lost);
    try {
      if (lost.opened) start();
    } catch {
      // One worker less; where none is left, every call says so.
    }
    for (const reject of lost.pending) reject(errors.worker(why));
  }
  try {
    for (let i = 0; i < threads; i++) start();
  } catch (error) {
    for (const connection of connections) void connection.end();
    throw error;
  }
  return {
    threads,
    run: (batch) => {
      if (connections.length === 0) return Promise.reject(errors.worker('no worker can start'));
      return connections.reduce((a, b) => (b.pending.size < a.pending.size ? b : a)).run(batch);
    },
    close: async () => {
      const ended = connections.splice(0).map((connection) => {
        for (const reject of connection.pending) reject(errors.worker('the pool is closed'));
        return connection.end();
      });
      await Promise.all(ended);
    },
  };
}
