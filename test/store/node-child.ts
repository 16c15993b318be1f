/**
 * A process for tests to kill: `node node-child.js NODE [OTHER OWN]` attaches to a store node, stores `from-child`, starts to put
 * `mid-put`, and `mid-far` on the segment OTHER, and never ends them. Prints a line when it is ready: what its links carried of that, by transport.
 */
import { Keys, MooncakeStore, OBJECTS } from 'mooncake-ts';
import { descriptors } from './descriptors.js';
import { carried, untilShared } from './node-links.js';

const store = await MooncakeStore.attach({ node: process.argv[2] });
await untilShared(store, 'child');
const before = carried(store);
await store.put('from-child', new Uint8Array(2 ** 20).fill(5));
const memory = new Uint8Array(2 ** 20).fill(1);
const segment = store.transfer.register(memory);
// In the node's own memory, where the cluster has other.
const own = process.argv[4] ? { preferredSegments: [process.argv[4]] } : {};
const batch = await store.openPut(Keys.from(['mid-put']), memory.length, { stride: memory.length, ...own });
await batch.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: memory.length - 1 }]));
if (process.argv[3]) {
  const preferredSegments = [process.argv[3]];
  await store.openPut(Keys.from(['mid-far']), memory.length, { stride: memory.length, preferredSegments });
}
const since = Object.entries(carried(store)).map(([transport, bytes]) => [transport, bytes - (before[transport] ?? 0)]);
console.log(JSON.stringify(Object.fromEntries(since)));
// Until it is killed.
setInterval(() => {}, 1000);
