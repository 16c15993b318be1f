/** A worker's side of both doors: runs the jobs of a batch, each on its own, and puts the results where they cross. */
import { errors } from '../src/core/errors.js';
import { PrefixReader } from '../src/core/prefix-reader.js';
import { useSharedCore } from '../src/core/wasm.js';
import { Lane } from '../src/pool/lanes.js';
import { type Batch, packError, type Reply, type Result, type WorkerSetup } from '../src/pool/wire.js';
import { type Matcher, patient } from './patience.js';
import { TaskContext, tasks } from './tasks.js';

export class Runner {
  readonly #setup: WorkerSetup;
  readonly #context: TaskContext;

  constructor(setup: WorkerSetup) {
    this.#setup = setup;
    const { core, readers } = setup;
    if (core) useSharedCore(core);
    const attached: Matcher[] = [];
    this.#context = new TaskContext((lane) => {
      const handle = readers?.[lane];
      if (!handle) throw errors.notSupported('matching without an index', 'make the pool with { index }');
      return (attached[lane] ??= patient(PrefixReader.attach(handle)));
    });
  }

  run({ jobs, lane: index, top }: Batch): Reply {
    const lane = new Lane(this.#setup.arena, index, top);
    const results = jobs.map(({ kind, arrays, rest }): Result => {
      const start = performance.now();
      try {
        const inputs = arrays.map((array) => lane.view(array));
        const done = tasks[kind]({ arrays: inputs, rest }, this.#context, index);
        const placed = done.arrays.map((array) => lane.place(array));
        return { ms: performance.now() - start, done: { arrays: placed, rest: done.rest } };
      } catch (error) {
        return { ms: performance.now() - start, error: packError(error) };
      }
    });
    return { results };
  }
}

/** What the reply carries outside shared memory, to be moved instead of copied. */
export function movable({ results }: Reply): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const { done } of results) {
    for (const array of done?.arrays ?? []) {
      if (ArrayBuffer.isView(array) && array.buffer instanceof ArrayBuffer) buffers.add(array.buffer);
    }
  }
  return [...buffers];
}
