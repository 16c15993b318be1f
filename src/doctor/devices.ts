/** NICs and GPUs, and the libraries that reach them. */
import type { NativeFeature } from '../native/addon.js';
import type { KernelFiles } from '../native/files.js';
import type { Topology } from '../native/topology.js';
import type { Finding } from './finding.js';

const near = (node: number) => (node < 0 ? '' : `, NUMA node ${node}`);

function speed(megabits: number | undefined): string {
  if (megabits === undefined) return '';
  return `, ${megabits >= 1000 ? `${megabits / 1000} Gb/s` : `${megabits} Mb/s`}`;
}

function describe({ name, up, node, speedMbps }: Topology['nics'][number]): string {
  return `${name} ${up ? 'up' : 'down'}${speed(speedMbps)}${near(node)}`;
}

export function network(nics: Topology['nics']): Finding {
  const found = nics.filter(({ kind }) => kind === 'ethernet').map(describe);
  return { topic: 'network', state: 'note', found: found.join('; ') || 'no NIC but the loopback' };
}

export function rdma(nics: Topology['nics'], library: NativeFeature | undefined): Finding {
  const found = nics.filter(({ kind }) => kind === 'rdma');
  const topic = 'RDMA';
  if (found.length === 0) return { topic, state: 'note', found: 'no device in /sys/class/infiniband' };
  const text = found.map(describe).join('; ');
  if (library && !library.usable) {
    return {
      topic,
      state: 'degraded',
      found: `${text}; ${library.detail}`,
      means: 'the devices cannot be used',
      mend: 'apt-get install libibverbs1 ibverbs-providers',
    };
  }
  if (!found.some(({ up }) => up)) {
    return {
      topic,
      state: 'degraded',
      found: text,
      means: 'no port is active',
      mend: 'ibstat shows the ports; on InfiniBand a subnet manager must run',
    };
  }
  return { topic, state: 'ok', found: text };
}

export function gpus(files: KernelFiles, found: Topology['gpus'], library: NativeFeature | undefined): Finding {
  const topic = 'GPUs';
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  …"
  const driver = /Kernel Module(?: for \S+)?\s+([\d.]+)/.exec(files.text('proc/driver/nvidia/version') ?? '')?.[1];
  if (found.length === 0 && !driver) return { topic, state: 'note', found: 'none' };
  const names = found.map(({ name, pciAddress, node }) => `${name} at ${pciAddress}${near(node)}`);
  const text = [...names, driver ? `NVIDIA driver ${driver}` : 'no NVIDIA driver'].join('; ');
  if (driver && library && !library.usable) {
    return {
      topic,
      state: 'degraded',
      found: `${text}; ${library.detail}`,
      means: 'GPU memory cannot be reached',
      mend: 'run the container with --gpus all, or install the driver’s libcuda1',
    };
  }
  return { topic, state: driver ? 'ok' : 'note', found: text };
}
