/** The suite for all connectors through the node service: its halves, its protocol, its mapped memory. */
import { MooncakeStore, ServiceConnector, type ServiceConnectorSpec, sharedMemory } from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import { conformance, type World } from '../connector/conformance.js';
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

/** Started when first needed; engines of all scenarios attach to the same ones. */
const services = new Map<string, ServiceProcess>();
async function serviceOf(name: string, verify = true): Promise<ServiceProcess> {
  const known = services.get(name) ?? (await ServiceProcess.start({ master: address, verify }));
  services.set(name, known);
  return known;
}

/** A service that has joined a cluster, whose objects lie here, where they can be evicted and corrupted. */
async function shared(loadAsync: boolean, unchecked: boolean): Promise<World> {
  const { socket } = await serviceOf(unchecked ? 'unchecked' : 'here', !unchecked);
  const connector: ServiceConnectorSpec = { kind: 'store', loadAsync, peerTensorParallelSizes: [1, 2, 4] };
  return {
    connector: () => new ServiceConnector({ socket, connector, timeoutMs: TIMEOUT_MS }),
    allocate: sharedMemory,
    evict,
    corrupt: async () => {
      for (let at = 0; at < BYTES; at += 61) memory[at] ^= 0x10;
    },
    count: async () => master.service.stats().objects,
    close: evict,
  };
}

const SHARED = ['shared', 'evict', 'corrupt'] as const;
for (const [loadAsync, capabilities] of [
  [true, [...SHARED, 'tensorParallel', 'unchecked']],
  [false, SHARED],
] as const) {
  const name = `store through the service, ${loadAsync ? 'asynchronous' : 'by layer'}`;
  conformance({ name, capabilities, world: ({ unchecked }) => shared(loadAsync, unchecked) }, test);
}

test.after(async () => {
  await Promise.all([...services.values()].map((service) => service.close()));
  await lender.close();
  await master.close();
});

test.run();
