/**
 * A process for tests to kill: `node child.js own PORT` serves a store of 64 MiB; `node child.js put ADDRESS` attaches to
 * one, starts to put `mid-put` piece by piece and never ends it. Both print a line when they are ready.
 */
import { Keys, MooncakeStore, OBJECTS, TcpTransfer } from 'mooncake-ts';
import { descriptors } from './descriptors.js';

const [, , role, where] = process.argv;
if (role === 'own') {
  const transfer = await TcpTransfer.listen({ port: Number(where) });
  const store = new MooncakeStore({ segments: '64MB', transfer });
  await store.put('here', new Uint8Array(1000).fill(7));
  store.serve();
  console.log(transfer.address);
} else {
  const transfer = await TcpTransfer.listen();
  const store = await MooncakeStore.attach({ transfer, address: where });
  const memory = new Uint8Array(2 ** 20).fill(1);
  const segment = transfer.register(memory);
  const batch = await store.openPut(Keys.from(['mid-put']), memory.length, { stride: memory.length });
  await batch.write(descriptors([{ source: [segment, 0], destination: [OBJECTS, 0], length: memory.length - 1 }]));
  console.log('writing');
}
// Until it is killed.
setInterval(() => {}, 1000);
