/**
 * A process for tests to kill and stop: a TcpTransfer with one segment of 64 MiB, whose byte i is i + 1 (mod 251), and a few
 * services. `node child.js PORT HEARTBEAT_MS DEAD_AFTER_MS` prints its address.
 */
import { TcpTransfer } from 'mooncake-ts';

const [port, heartbeatMs, deadAfterMs] = process.argv.slice(2).map(Number);
const transfer = await TcpTransfer.listen({ port, heartbeatMs, deadAfterMs });
const memory = new Uint8Array(64 * 2 ** 20);
for (let i = 0; i < memory.length; i++) memory[i] = (i + 1) % 251;
transfer.register(memory, { name: 'kv' });
transfer.serve('hang', () => new Promise(() => {}));
transfer.serve('ping', () => 'pong');
// Computes for so many milliseconds without a look at its sockets.
transfer.serve('compute', (ms) => {
  const end = performance.now() + (ms as number);
  let rounds = 0;
  while (performance.now() < end) rounds++;
  return rounds;
});
transfer.serve('quit', () => setTimeout(() => transfer.close(), 10) && null);
// Opens a connection to the caller's transfer and closes it, and everything, at the end.
transfer.serve('visit', async (address) => (await transfer.connect(address as string)).call('ping', null));
console.log(transfer.address);
