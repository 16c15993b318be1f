/**
 * A process for tests to kill: `node node-child.js NODE` attaches to a store node, stores `from-child`, starts to put `mid-put`
 * and never ends it. Prints a line when it is ready: what its links have carried, by transport.
 */
import { type EngineStatistics, Keys, MooncakeStore, OBJECTS } from 'mooncake-ts';
import { descriptors } from './descriptors.js';

const store = await MooncakeStore.attach({ node: process.argv[2] });
await store.put('from-child', new Uint8Array(2 ** 20).fill(5));
const memory = new Uint8Array(2 ** 20).fill(1);
const segment = store.transfer.register(memory);
const batch = await store.openPut(Keys.from(['mid-put']), memory.length, { stride: memory.length });
await batch.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: memory.length - 1 }]));
const { engine } = store.transfer as unknown as { engine: { statistics(): EngineStatistics } };
const carried = engine.statistics().links.map(({ transport, bytes }) => [transport, bytes]);
console.log(JSON.stringify(carried));
// Until it is killed.
setInterval(() => {}, 1000);
