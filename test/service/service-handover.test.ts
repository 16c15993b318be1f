/** The suite for all connectors through two node services, which hand prompts over to each other. */
import { ServiceConnector, type ServiceConnectorSpec, sharedMemory } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type World, type WorldOptions } from '../connector/conformance.js';
import { ServiceProcess } from './service-process.js';

const TIMEOUT_MS = 20_000;

const hosts = [await ServiceProcess.start(), await ServiceProcess.start()];

/** Engines are on one host and the other in turn. */
async function handedOver(mode: string, { abandons }: WorldOptions): Promise<World> {
  const connector: ServiceConnectorSpec = { kind: 'mooncake', mode, abortTimeoutMs: abandons ? 50 : 60_000 };
  let made = 0;
  return {
    connector: () => {
      const { socket } = hosts[made++ % hosts.length];
      return new ServiceConnector({ socket, connector, timeoutMs: TIMEOUT_MS });
    },
    allocate: sharedMemory,
    kill: async () => {
      await Promise.all(hosts.map((service) => service.kill()));
    },
    revive: async () => {
      await Promise.all(hosts.map((service) => service.restart()));
    },
    close: async () => {
      await Promise.all(hosts.filter(({ killed }) => killed).map((service) => service.restart()));
    },
  };
}

for (const [mode, capabilities] of [
  ['pull', ['handover', 'tensorParallel', 'kill']],
  ['layers', ['handover', 'early', 'kill']],
] as const) {
  const world = (options: WorldOptions) => handedOver(mode, options);
  conformance({ name: `${mode} through services`, capabilities, world }, test);
}

test.after(async () => {
  await Promise.all(hosts.map((service) => service.close()));
});

test.run();
