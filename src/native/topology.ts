/**
 * Which processors, memory, NICs and GPUs are near each other, as sysfs tells it: data should leave by the NIC on the NUMA
 * node that holds it. Files: Documentation/ABI/stable/sysfs-devices-node, testing/sysfs-class-net, stable/sysfs-class-infiniband
 * and testing/sysfs-bus-pci of the kernel.
 */
import { cpus, totalmem } from 'node:os';
import { KernelFiles } from './files.js';
import { PCI_DISTANCES, type PciDistance, pciDistance, pciPath } from './pcie.js';

export type { PciDistance } from './pcie.js';

/** NUMA nodes with their processors and memory, NICs and GPUs with the node they are near. */
export interface Topology {
  nodes: { node: number; cpus: number[]; memoryBytes: number }[];
  /** `node` -1: not known. */
  nics: {
    name: string;
    kind: 'ethernet' | 'rdma';
    node: number;
    speedMbps?: number;
    up: boolean;
    /** Not there where it is no device on PCI. */
    pciAddress?: string;
    /** The GPUs whose distance is known, of an RDMA device; nearest first. */
    gpus?: { pciAddress: string; distance: PciDistance }[];
  }[];
  gpus: { name: string; node: number; pciAddress: string }[];
}

const ETHERNET = '1'; // ARPHRD_ETHER
const DISPLAY = /^0x03/; // PCI base class
const NVIDIA = '0x10de';
/** Others' display controllers are consoles of servers and virtual machines. */
const GPU_VENDORS: Record<string, string> = { [NVIDIA]: 'NVIDIA', '0x1002': 'AMD', '0x8086': 'Intel' };

/** "0-3,8" as numbers. */
function cpuList(text = ''): number[] {
  return [...text.matchAll(/(\d+)(?:-(\d+))?/g)].flatMap(([, from, to = from]) =>
    Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i),
  );
}

const kilobytes = (text: string | undefined, name: string) =>
  Number(new RegExp(`\\b${name}:\\s*(\\d+) kB`).exec(text ?? '')?.[1] ?? 0) * 1024;

function nodes(files: KernelFiles): Topology['nodes'] {
  const base = 'sys/devices/system/node';
  const found = files
    .names(base)
    .filter((name) => /^node\d+$/.test(name))
    .map((name) => ({
      node: Number(name.slice(4)),
      cpus: cpuList(files.text(`${base}/${name}/cpulist`)),
      memoryBytes: kilobytes(files.text(`${base}/${name}/meminfo`), 'MemTotal'),
    }));
  if (found.length > 0) return found;
  // A kernel without NUMA, or no Linux: one node with everything.
  return [{ node: 0, cpus: cpus().map((_, cpu) => cpu), memoryBytes: totalmem() }];
}

function ethernet(files: KernelFiles): Topology['nics'] {
  const base = 'sys/class/net';
  const all = files
    .names(base)
    .filter(
      (name) => files.text(`${base}/${name}/type`) === ETHERNET && files.names(`${base}/${name}/bridge`).length === 0,
    );
  const real = all.filter((name) => files.names(`${base}/${name}/device`).length > 0);
  // A container sees one end of a pair, which has no device: then what is up is what there is.
  const shown = real.length > 0 ? real : all.filter((name) => files.text(`${base}/${name}/operstate`) === 'up');
  return shown.map((name) => {
    const speed = files.number(`${base}/${name}/speed`) ?? -1;
    return {
      name,
      kind: 'ethernet',
      node: files.number(`${base}/${name}/device/numa_node`) ?? -1,
      ...(speed > 0 && { speedMbps: speed }),
      up: files.text(`${base}/${name}/operstate`) === 'up',
    };
  });
}

function rdma(files: KernelFiles): Topology['nics'] {
  const base = 'sys/class/infiniband';
  return files.names(base).map((name) => {
    const ports = files.names(`${base}/${name}/ports`).map((port) => ({
      active: files.text(`${base}/${name}/ports/${port}/state`)?.endsWith('ACTIVE') ?? false,
      // "100 Gb/sec (4X EDR)"
      gigabits: Number(/^[\d.]+/.exec(files.text(`${base}/${name}/ports/${port}/rate`) ?? '')?.[0] ?? 0),
    }));
    const up = ports.filter(({ active }) => active);
    const gigabits = Math.max(0, ...(up.length > 0 ? up : ports).map((port) => port.gigabits));
    return {
      name,
      kind: 'rdma',
      node: files.number(`${base}/${name}/device/numa_node`) ?? -1,
      ...(gigabits > 0 && { speedMbps: gigabits * 1000 }),
      up: up.length > 0,
    };
  });
}

function gpus(files: KernelFiles): Topology['gpus'] {
  const base = 'sys/bus/pci/devices';
  return files.names(base).flatMap((pciAddress) => {
    const vendor = files.text(`${base}/${pciAddress}/vendor`) ?? '';
    if (!DISPLAY.test(files.text(`${base}/${pciAddress}/class`) ?? '') || !(vendor in GPU_VENDORS)) return [];
    const driver = vendor === NVIDIA ? files.text(`proc/driver/nvidia/gpus/${pciAddress}/information`) : undefined;
    const model =
      /^Model:\s*(.+)$/m.exec(driver ?? '')?.[1] ??
      files.text(`${base}/${pciAddress}/product_name`) ??
      `${GPU_VENDORS[vendor]} ${files.text(`${base}/${pciAddress}/device`) ?? ''}`.trim();
    return [{ name: model, node: files.number(`${base}/${pciAddress}/numa_node`) ?? -1, pciAddress }];
  });
}

/** PCI addresses of NICs, and how far GPUs are from those that reach their memory. */
function locate(files: KernelFiles, { nics, gpus }: Topology): void {
  const places = gpus.map(({ pciAddress, node }) => {
    const path = pciPath(files, `sys/bus/pci/devices/${pciAddress}`);
    // A link that leads to another device tells nothing.
    return { pciAddress, node, path: path.at(-1) === pciAddress ? path : [] };
  });
  for (const nic of nics) {
    const folder = nic.kind === 'rdma' ? 'sys/class/infiniband' : 'sys/class/net';
    const path = pciPath(files, `${folder}/${nic.name}/device`);
    if (path.length === 0) continue;
    nic.pciAddress = path.at(-1);
    if (nic.kind !== 'rdma') continue;
    const near = places.flatMap(({ pciAddress, ...gpu }) => {
      const distance = pciDistance({ path, node: nic.node }, gpu);
      return distance ? [{ pciAddress, distance }] : [];
    });
    near.sort((a, b) => PCI_DISTANCES.indexOf(a.distance) - PCI_DISTANCES.indexOf(b.distance));
    if (near.length > 0) nic.gpus = near;
  }
}

/** Reads it anew: NICs come and go. A device whose node the firmware does not tell is on the only one, where there is one. */
export function readTopology(files = new KernelFiles()): Topology {
  const found: Topology = { nodes: nodes(files), nics: [...ethernet(files), ...rdma(files)], gpus: gpus(files) };
  if (found.nodes.length === 1) {
    for (const device of [...found.nics, ...found.gpus]) if (device.node < 0) device.node = found.nodes[0].node;
  }
  locate(files, found);
  return found;
}
