/**
 * Where devices sit in the PCI tree, and how far two of them are from each other, in the words of `nvidia-smi topo -m`. A device's
 * folder in sysfs lies below those of the bridges above it, whose first is the host bridge (Documentation/ABI/testing/sysfs-bus-pci
 * of the kernel). The accelerator chooses NICs by the same (native/topology/pcie.h).
 */
import type { KernelFiles } from './files.js';

/**
 * Nearest first. `PIX`: at most one bridge between them; `PXB`: several; `PHB`: by way of the host bridge; `NODE`: between host bridges
 * of one NUMA node; `SYS`: between NUMA nodes.
 */
export const PCI_DISTANCES = ['PIX', 'PXB', 'PHB', 'NODE', 'SYS'] as const;
export type PciDistance = (typeof PCI_DISTANCES)[number];

const HOST_BRIDGE = /^pci[\da-f]{4,8}:[\da-f]{2}$/;
const FUNCTION = /^[\da-f]{4,8}:[\da-f]{2}:[01][\da-f]\.[0-7]$/;

/** Host bridge, bridges, the device: of a device's folder, or a link to it. Empty where it is on no PCI bus, as soft-RoCE. */
export function pciPath(files: KernelFiles, folder: string): string[] {
  const names = files.target(folder)?.split('/') ?? [];
  const begin = names.findIndex((name) => HOST_BRIDGE.test(name));
  const tree = begin < 0 ? [] : names.slice(begin);
  // What lies below a function (virtio, a part of a NIC) is where that is.
  const end = tree.findIndex((name) => !HOST_BRIDGE.test(name) && !FUNCTION.test(name));
  const path = end < 0 ? tree : tree.slice(0, end);
  return FUNCTION.test(path.at(-1) ?? '') ? path : [];
}

/** A device with its NUMA node, -1: not told. */
export interface PciDevice {
  path: string[];
  node: number;
}

/** Undefined: one is on no PCI bus, or on another host bridge and a node is not told. */
export function pciDistance(one: PciDevice, other: PciDevice): PciDistance | undefined {
  if (one.path.length === 0 || other.path.length === 0) return undefined;
  const differs = one.path.findIndex((name, i) => name !== other.path[i]);
  const shared = differs < 0 ? one.path.length : differs;
  if (shared === 0) {
    if (one.node < 0 || other.node < 0) return undefined;
    return one.node === other.node ? 'NODE' : 'SYS';
  }
  if (shared === 1) return 'PHB';
  // Below the last bridge that both share, a switch has one more bridge for each of its ports.
  return Math.max(one.path.length, other.path.length) - shared <= 2 ? 'PIX' : 'PXB';
}
