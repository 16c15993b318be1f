/** A node for tests to kill: `node connect-child.js MASTER` lends 64 MiB to a cluster and prints its endpoint. */
import { MooncakeStore } from 'mooncake-ts';

const store = await MooncakeStore.connect({ master: process.argv[2], segments: '64MB' });
console.log(store.transfer.address);
// Until it is killed.
setInterval(() => {}, 1000);
