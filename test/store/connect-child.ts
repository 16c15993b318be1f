/**
 * A node for tests to kill: `node connect-child.js MASTER [portable]` lends 64 MiB to a cluster and prints its endpoint. A
 * portable one serves its bytes itself, so that it can hang; otherwise others may reach them as shared memory.
 */
import { MooncakeStore } from 'mooncake-ts';

const store = await MooncakeStore.connect({
  master: process.argv[2],
  segments: '64MB',
  native: process.argv[3] !== 'portable',
});
console.log(store.transfer.address);
// Until it is killed.
setInterval(() => {}, 1000);
