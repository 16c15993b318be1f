// A peer in a process of its own: NICs and port as arguments; says its name when it can be reached.

import { TransferEngine } from 'mooncake-ts';
import { MiB } from './support.js';

const [devices, port] = process.argv.slice(2);
const engine = await TransferEngine.create({
  transports: ['rdma'],
  port: Number(port),
  rdma: { devices, gidIndex: 1 },
});
await engine.allocate(4 * MiB);
process.send!(engine.name);
