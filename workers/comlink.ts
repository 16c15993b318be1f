/**
 * mooncake-ts/workers: the tasks behind comlink, for pages and for anything that talks over a MessagePort.
 *
 *     // worker.js                                      // page.js
 *     import { expose } from 'mooncake-ts/workers';     import { connect } from 'mooncake-ts/workers';
 *     expose();                                         const pool = connect(() => new Worker(url, { type: 'module' }));
 *
 * In Node the endpoint is a Worker of node:worker_threads on one side and `parentPort` on the other.
 */
import * as Comlink from 'comlink';
import { errors } from '../src/core/errors.js';
import { openComlink, type WorkerApi, type WorkerEndpoint } from '../src/pool/comlink.js';
import { type PoolOptions, TaskPool } from '../src/pool/pool.js';
import { movable, Runner } from './runner.js';

export { type ErrorCode, MooncakeError } from '../src/core/errors.js';
export type { WorkerEndpoint } from '../src/pool/comlink.js';
export * from '../src/pool/pool.js';

/** Serves the tasks at `endpoint`: in a browser's worker its own global scope. */
export function expose(endpoint: Comlink.Endpoint = globalThis as unknown as Comlink.Endpoint): void {
  let runner: Runner;
  const api: WorkerApi = {
    open: (setup) => {
      runner = new Runner(setup);
    },
    run: (batch) => {
      const reply = runner.run(batch);
      return Comlink.transfer(reply, movable(reply));
    },
  };
  Comlink.expose(api, endpoint);
}

/**
 * A pool over workers that `open` makes, one call for each thread and one for each worker that dies. `options.threads`
 * is the platform's parallelism by default.
 */
export function connect(open: () => WorkerEndpoint, options: PoolOptions = {}): TaskPool {
  if (typeof open !== 'function') throw errors.invalidArgument('open', open, 'a function that returns a worker');
  return new TaskPool(
    options,
    (setup, threads) => openComlink(setup, threads, open),
    globalThis.navigator?.hardwareConcurrency ?? 1,
  );
}
