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

const A_DAY = 86_400_000;
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
    ...importing(),
  });
  const running = new Set<(error: unknown) => void>();
  // Piscina does not keep the process alive while a batch waits for a worker that starts.
  const alive = setInterval(() => {}, A_DAY).unref();
  let closed = false;
  let purged: Promise<void> | undefined;
  // Piscina replaces a worker that dies, unless its successor dies while it loads: then a batch that waits for a worker
  // would wait for ever, or run after its lane has gone to another. So the queue is emptied; the next batch starts anew.
  const failWithoutWorkers = (cause: Error) => {
    if (closed || piscina.threads.length > 0) return;
    for (const reject of running) reject(errors.worker(`no worker can start: ${cause.message}`, cause));
    purged = piscina.destroy();
  };
  piscina.on('error', failWithoutWorkers);
  piscina.on('workerDestroy', () => queueMicrotask(() => failWithoutWorkers(new Error('the last one has ended'))));
  return {
    threads,
    run: async (batch) => {
      await purged;
      return new Promise<Reply>((resolve, reject) => {
        running.add(reject);
        alive.ref();
        const settled = () => {
          running.delete(reject);
          if (running.size === 0) alive.unref();
        };
        const lost = (cause: Error) => reject(errors.worker(cause.message, cause));
        piscina.run(batch).then(resolve, lost).finally(settled);
      });
    },
    close: async () => {
      closed = true;
      clearInterval(alive);
      await piscina.destroy();
    },
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

/**
 * Piscina tries `require` first, and where Node can require a module, a worker that is terminated in the middle of that
 * takes the whole process with it (V8 aborts in ModuleWrap::InstantiateSync). Without it the module is imported.
 */
function importing(): { execArgv?: string[] } {
  const { require_module: requires } = process.features as { require_module?: boolean };
  return requires ? { execArgv: [...process.execArgv, '--no-experimental-require-module'] } : {};
}
