/** The entry of a piscina worker thread. */
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import type { Batch, WorkerSetup } from '../src/pool/wire.js';
import { movable, Runner } from './runner.js';

const runner = new Runner(workerData as WorkerSetup);

export default (batch: Batch) => {
  const reply = runner.run(batch);
  const buffers = movable(reply);
  return buffers.length === 0 ? reply : move({ [transferableSymbol]: buffers, [valueSymbol]: reply });
};
