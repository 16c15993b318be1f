/**
 * What every connector must do, whatever it is made of. A subject says how to make a world (a store, a network, a pair of
 * engines' connectors) and what can be done to it; each scenario runs engines of harness.ts in a fresh world and looks at
 * the bytes that attention read, at the blocks that came back, and at what was computed twice.
 *
 *     conformance(subject, test);
 */
import { arrival } from './conformance-arrival.js';
import { Bench, type Subject } from './conformance-bench.js';
import { crowds } from './conformance-crowds.js';
import { faults } from './conformance-faults.js';

export type { Capability, Subject, World, WorldOptions } from './conformance-bench.js';

/** Runs every scenario that the subject has the capabilities for. */
export function conformance(subject: Subject, test: (name: string, run: () => Promise<void>) => void): void {
  for (const { name, needs, run, abandons = false } of [...arrival, ...crowds, ...faults]) {
    if (needs.some((capability) => !subject.capabilities.includes(capability))) continue;
    test(`${subject.name}: ${name}`, async () => {
      const bench = new Bench(subject, await subject.world({ unchecked: needs.includes('unchecked'), abandons }));
      try {
        await run(bench);
      } finally {
        await bench.close();
      }
    });
  }
}
