/** Replays by definition, over arrays and sets, for comparison. A request is the ids of its blocks. */
import fc from 'fast-check';
import { type Trace, TraceBuilder } from 'mooncake-ts';

export type Requests = readonly (readonly number[])[];

export function toTrace(requests: Requests): Trace {
  const builder = new TraceBuilder();
  requests.forEach((hash_ids, at) => {
    builder.add({ timestamp: at, input_length: 512 * hash_ids.length, output_length: 1, hash_ids }, at + 1);
  });
  return builder.build();
}

/** Requests that walk down a random tree, two children a block: an id stands for its path, so traces are chained. */
export function chainedRequests(most: number, depth: number): fc.Arbitrary<number[][]> {
  const path = fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: depth });
  const toIds = (turns: number[]) => {
    let id = 1;
    return turns.map((turn) => (id = 2 * id + turn));
  };
  return fc.array(path.map(toIds), { minLength: 1, maxLength: most });
}

function leadingRun(blocks: readonly number[], held: { has(block: number): boolean }): number {
  const end = blocks.findIndex((block) => !held.has(block));
  return end < 0 ? blocks.length : end;
}

export function naiveLru(requests: Requests, capacity: number): { hitBlocks: number; evictions: number } {
  const held = new Set<number>();
  let hitBlocks = 0;
  let evictions = 0;
  for (const blocks of requests) {
    hitBlocks += leadingRun(blocks, held);
    for (const block of blocks) {
      if (!held.delete(block) && held.size === capacity) {
        held.delete([...held][0]);
        evictions++;
      }
      held.add(block);
    }
  }
  return { hitBlocks, evictions };
}

/** The most leading-run hits that any choice of what to keep can give: all choices are tried. */
export function optimum(requests: Requests, capacity: number): number {
  const key = (held: Iterable<number>) => [...held].sort((a, b) => a - b).join(' ');
  let states = new Map<string, { held: Set<number>; hits: number }>([['', { held: new Set(), hits: 0 }]]);
  const better = (next: typeof states, held: Set<number>, hits: number) => {
    const name = key(held);
    if ((next.get(name)?.hits ?? -1) < hits) next.set(name, { held, hits });
  };
  for (const blocks of requests) {
    let next: typeof states = new Map();
    for (const { held, hits } of states.values()) better(next, held, hits + leadingRun(blocks, held));
    states = next;
    for (const block of blocks) {
      next = new Map();
      for (const { held, hits } of states.values()) {
        better(next, held, hits);
        if (held.has(block)) continue;
        if (held.size < capacity) better(next, new Set([...held, block]), hits);
        for (const victim of held) better(next, new Set([...held, block].filter((other) => other !== victim)), hits);
      }
      states = next;
    }
  }
  return Math.max(...[...states.values()].map(({ hits }) => hits));
}
