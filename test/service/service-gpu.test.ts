/** The suite for all connectors through the node service, over KV caches in memory of a (simulated) GPU. */
import { MooncakeStore, ServiceConnector, type ServiceConnectorSpec } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import { conformance, type World } from '../connector/conformance.js';
import { gpuScenarios } from '../support/gpu.js';
import { gpuMemory, onGpu } from '../support/gpu-cache.js';
import { ServiceProcess } from './service-process.js';

const BYTES = 1 << 20;
const TIMEOUT_MS = 20_000;

const master = await MooncakeMaster.listen({ port: 0, admin: false });
const address = `127.0.0.1:${master.ports.rpc}`;
const memory = new Uint8Array(BYTES);
const lender = await MooncakeStore.connect({ master: address, segments: [{ name: 'objects', memory }] });

const evict = async () => {
  await lender.removeAll({ force: true });
};

let service: ServiceProcess | undefined;

/** The service has joined a cluster, whose objects lie here, where they can be evicted and corrupted. */
async function world(loadAsync: boolean, kind: 'ipc' | 'vmm' = 'ipc'): Promise<World> {
  const { socket } = (service ??= await ServiceProcess.start({ master: address }));
  const connector: ServiceConnectorSpec = { kind: 'store', loadAsync, peerTensorParallelSizes: [1, 2, 4] };
  return {
    connector: () => onGpu(new ServiceConnector({ socket, connector, timeoutMs: TIMEOUT_MS }), kind),
    allocate: gpuMemory,
    evict,
    corrupt: async () => {
      for (let at = 0; at < BYTES; at += 61) memory[at] ^= 0x10;
    },
    count: async () => master.service.stats().objects,
    close: evict,
  };
}

// What both ways of loading have in common is run once: the suite as a whole is service-conformance.test.ts's.
const once = gpuScenarios(test);
const SHARED = ['shared', 'evict', 'corrupt'] as const;
for (const [loadAsync, capabilities] of [
  [false, SHARED],
  [true, [...SHARED, 'tensorParallel']],
] as const) {
  const name = `GPU memory through the service, ${loadAsync ? 'asynchronous' : 'by layer'}`;
  conformance({ name, capabilities, world: () => world(loadAsync) }, once);
}

// Handed over by descriptors: what is made of it is the same memory, so that what changes a cache's bytes is enough.
conformance(
  {
    name: 'memory of cuMemCreate through the service',
    capabilities: ['shared'],
    world: () => world(true, 'vmm'),
  },
  gpuScenarios(test),
);

test.after(async () => {
  await service?.close();
  await lender.close();
  await master.close();
});

test.run();
