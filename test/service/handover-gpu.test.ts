/** The suite for all connectors through two node services that hand prompts over, between (simulated) GPUs. */
import { ServiceConnector, type ServiceConnectorSpec } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type World, type WorldOptions } from '../connector/conformance.js';
import { gpuScenarios } from '../support/gpu.js';
import { gpuMemory, onGpu } from '../support/gpu-cache.js';
import { ServiceProcess } from './service-process.js';

const TIMEOUT_MS = 20_000;

let hosts: ServiceProcess[] = [];

/** Engines are on one host and the other in turn. */
async function handedOver(mode: string, { abandons }: WorldOptions): Promise<World> {
  if (hosts.length === 0) hosts = [await ServiceProcess.start(), await ServiceProcess.start()];
  const connector: ServiceConnectorSpec = { kind: 'mooncake', mode, abortTimeoutMs: abandons ? 50 : 60_000 };
  let made = 0;
  return {
    connector: () => {
      const { socket } = hosts[made++ % hosts.length];
      return onGpu(new ServiceConnector({ socket, connector, timeoutMs: TIMEOUT_MS }));
    },
    allocate: gpuMemory,
    close: async () => {},
  };
}

// What a mode has in common with the one before it is run once: the suite as a whole is service-handover.test.ts's.
const once = gpuScenarios(test);
for (const [mode, capabilities] of [
  ['pull', ['handover', 'tensorParallel']],
  ['layers', ['handover', 'early']],
] as const) {
  const world = (options: WorldOptions) => handedOver(mode, options);
  conformance({ name: `${mode} between GPUs through services`, capabilities, world }, once);
}

test.after(async () => {
  await Promise.all(hosts.map((service) => service.close()));
});

test.run();
