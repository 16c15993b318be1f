/** A store in a process of its own, for tests to kill: `node store-child.js PORT` sends its address, then takes commands. */
import { MooncakeStore, TcpTransfer } from 'mooncake-ts';

const transfer = await TcpTransfer.listen({ port: Number(process.argv[2]) });
const memory = new Uint8Array(1 << 20);
const store = new MooncakeStore({ transfer, segments: [{ name: 'objects', memory }] });
store.serve(transfer);

process.on('message', async (command) => {
  if (command === 'corrupt') for (let at = 0; at < memory.length; at += 61) memory[at] ^= 0x10;
  process.send!(command === 'count' ? (await store.stats()).metadata.objects : 0);
});
process.on('disconnect', () => process.exit());
process.send!(transfer.address);
