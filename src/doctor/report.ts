/**
 * Looks at the machine and says what mooncake-ts makes of it. Files of the kernel are read below `root`, so that another
 * machine's can be judged; what must be tried (system calls, libraries, ports, speeds) is always tried here.
 */
import { availableParallelism } from 'node:os';
import { KernelFiles } from '../native/files.js';
import { type LoadedAddon, loadAddon } from '../native/load.js';
import { readTopology, type Topology } from '../native/topology.js';
import { measureVerification, type Verification } from '../native/verification.js';
import { accelerator, buildTools, compiler, node, processors, verification } from './accelerator.js';
import { gpus, network, rdma } from './devices.js';
import type { Finding } from './finding.js';
import { hugePages, lockLimit, placement, shared } from './memory.js';
import { ports } from './ports.js';
import { ioUring, openFiles, processMemory } from './processes.js';
import { rdmaFindings } from './rdma.js';

export interface Report {
  /** Where the addon was found, and what was tried before. */
  accelerator: { path?: string; version?: string; tried: LoadedAddon['tried'] };
  /** Bytes per second. */
  verification: Verification;
  topology: Topology;
  findings: Finding[];
}

/** `withNics`: also what each NIC has, and a write of it to itself. */
export async function examine(root = '/', withNics = false): Promise<Report> {
  const files = new KernelFiles(root);
  const loaded = loadAddon();
  const { addon, path, tried } = loaded;
  const features = new Map(addon?.probe().map((feature) => [feature.name, feature]));
  const topology = readTopology(files);
  const measured = measureVerification(addon);
  const tools = buildTools();
  const withRdma = topology.nics.some(({ kind }) => kind === 'rdma');
  return {
    accelerator: { path, version: addon?.version, tried },
    verification: measured,
    topology,
    findings: [
      node(),
      accelerator(loaded, tools),
      compiler(tools, addon !== undefined),
      verification(measured),
      processors(topology.nodes, availableParallelism()),
      ...placement(topology.nodes.length, features.get('memoryPolicy')),
      ...shared(features.get('memfd')),
      ...hugePages(files, features.get('hugePages')),
      ...lockLimit(files, withRdma),
      ...processMemory(files, features.get('processVmPeers')),
      ...ioUring(files, features.get('ioUring')),
      ...openFiles(files),
      network(topology.nics),
      rdma(topology.nics, features.get('libibverbs.so.1')),
      ...(withNics ? await rdmaFindings(files, topology) : []),
      gpus(files, topology.gpus, features.get('libcuda.so.1')),
      ...(await ports()),
    ],
  };
}
