/** What is near what in this machine, as Linux tells it in /sys; elsewhere one node with all processors. */
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Topology } from './api.js';

/** PCI classes of display controllers: VGA, 3D, other. */
const GPU_CLASS = /^0x03(00|02|80)/;
const VENDORS: Record<string, string> = { '0x10de': 'NVIDIA', '0x1002': 'AMD', '0x8086': 'Intel' };
const ARPHRD_ETHER = '1';

function text(...path: string[]): string {
  try {
    return readFileSync(join(...path), 'utf8').trim();
  } catch {
    return '';
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** -1 where the device has none, or the machine but one node. */
function nodeOf(device: string): number {
  const node = text(device, 'numa_node');
  return /^\d+$/.test(node) ? Number(node) : -1;
}

/** "0-3,8": 0, 1, 2, 3, 8. */
export function parseCpuList(list: string): number[] {
  return list
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [first, last = first] = part.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
}

function nodes(sys: string): Topology['nodes'] {
  const folder = join(sys, 'devices/system/node');
  const found = names(folder).filter((name) => /^node\d+$/.test(name));
  if (found.length === 0) return [{ node: 0, cpus: cpus().map((_, index) => index), memoryBytes: totalmem() }];
  return found.map((name) => {
    const kilobytes = /MemTotal:\s+(\d+) kB/.exec(text(folder, name, 'meminfo'))?.[1];
    return {
      node: Number(name.slice(4)),
      cpus: parseCpuList(text(folder, name, 'cpulist')),
      memoryBytes: 1024 * Number(kilobytes ?? 0),
    };
  });
}

function ethernet(sys: string): Topology['nics'] {
  const folder = join(sys, 'class/net');
  return names(folder)
    .filter((name) => text(folder, name, 'type') === ARPHRD_ETHER)
    .map((name) => {
      const speed = Number(text(folder, name, 'speed') || -1);
      const up = text(folder, name, 'operstate') === 'up';
      const node = nodeOf(join(folder, name, 'device'));
      return { name, kind: 'ethernet', node, ...(speed > 0 ? { speedMbps: speed } : {}), up };
    });
}

function rdma(sys: string): Topology['nics'] {
  const folder = join(sys, 'class/infiniband');
  return names(folder).map((name) => {
    const ports = names(join(folder, name, 'ports')).map((port) => join(folder, name, 'ports', port));
    // "100 Gb/sec (4X EDR)", "4: ACTIVE"
    const gigabits = Math.max(0, ...ports.map((port) => Number.parseFloat(text(port, 'rate')) || 0));
    const up = ports.some((port) => text(port, 'state').endsWith('ACTIVE'));
    const speed = gigabits > 0 ? { speedMbps: 1000 * gigabits } : {};
    return { name, kind: 'rdma', node: nodeOf(join(folder, name, 'device')), ...speed, up };
  });
}

function gpus(sys: string): Topology['gpus'] {
  const folder = join(sys, 'bus/pci/devices');
  return names(folder)
    .filter((address) => GPU_CLASS.test(text(folder, address, 'class')))
    .map((address) => {
      const device = realDevice(join(folder, address));
      const vendor = text(device, 'vendor');
      return {
        name: `${VENDORS[vendor] ?? vendor} ${text(device, 'device')}`,
        node: nodeOf(device),
        pciAddress: address,
      };
    });
}

function realDevice(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** `sys`: where /sys is. */
export function readTopology(sys = '/sys'): Topology {
  return { nodes: nodes(sys), nics: [...ethernet(sys), ...rdma(sys)], gpus: gpus(sys) };
}
