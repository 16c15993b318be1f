/** The Node door: worker threads of piscina. The only file of the pool that knows Node. */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { options as plainOptions } from '../core/check.js';
import { errors } from '../core/errors.js';
import { type PoolOptions, TaskPool } from './pool.js';
import { DEPTH, type Door } from './scheduler.js';
import type { Batch, Reply, WorkerSetup } from './wire.js';

const ENTRY = new URL('../../workers/piscina.js', import.meta.url);

/** Starts `threads` workers of `entry`, by default the package's own (a bundler may have moved it). */
export function openPiscina(setup: WorkerSetup, threads: number, entry: string | URL = ENTRY): Door {
  if (!(entry instanceof URL) && typeof entry !== 'string') {
    throw errors.invalidArgument('workerFile', entry, 'a path or a file URL');
  }
  const filename = entry instanceof URL || entry.startsWith('file:') ? fileURLToPath(entry) : entry;
  if (!existsSync(filename)) throw errors.invalidArgument('workerFile', filename, 'an existing file');
  const piscina = new Piscina<Batch, Reply>({
    filename,
    minThreads: threads,
    maxThreads: threads,
    concurrentTasksPerWorker: DEPTH,
    workerData: setup,
  });
  const running = new Set<(error: unknown) => void>();
  // piscina replaces a worker that dies, unless its successor dies while it loads: then a batch that waits for a worker
  // would wait for ever.
  piscina.on('error', (cause) => {
    if (piscina.threads.length > 0) return;
    for (const reject of running) reject(errors.worker(`no worker can start: ${(cause as Error).message}`, cause));
  });
  return {
    threads,
    run: (batch) =>
      new Promise<Reply>((resolve, reject) => {
        running.add(reject);
        const lost = (cause: Error) => reject(errors.worker(cause.message, cause));
        piscina
          .run(batch)
          .then(resolve, lost)
          .finally(() => running.delete(reject));
      }),
    close: () => piscina.destroy(),
  };
}

export interface WorkerPoolOptions extends PoolOptions {
  /** The module that workers run, where a bundler has moved it. Default: the package's `workers/piscina.js`. */
  workerFile?: string | URL;
}

/** The pool of Node: piscina's worker threads, by default as many as the machine runs at once. */
export class WorkerPool extends TaskPool {
  constructor(options: WorkerPoolOptions = {}) {
    const { workerFile, ...rest } = plainOptions('options', options);
    super(rest, (setup, threads) => openPiscina(setup, threads, workerFile), availableParallelism());
  }
}
