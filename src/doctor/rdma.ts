/**
 * `doctor --rdma`: what a support engineer would ask about NICs, and a write of each to itself, which shows more than any of it.
 * Files: Documentation/ABI/stable/sysfs-class-infiniband of the kernel.
 */
import { randomFillSync } from 'node:crypto';
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { KernelFiles } from '../native/files.js';
import type { Topology } from '../native/topology.js';
import { TransferEngine } from '../transfer/engine/engine.js';
import type { Finding } from './finding.js';

const BASE = 'sys/class/infiniband';
const LOOPBACK_BYTES = 1 << 20;
const LOOPBACK_MS = 10_000;
const NO_GID = /^(0000:){7}0000$|^$/;
/** Modules by which NICs reach the memory of GPUs where they take no dma-buf. */
const PEER_MEMORY = ['nvidia_peermem', 'nv_peer_mem', 'amdgpu'];

/** "2: RoCE v2 …:ffff:0a4d:0001". */
function gids(files: KernelFiles, port: string): string[] {
  return files.names(`${port}/gids`).flatMap((index) => {
    const gid = files.text(`${port}/gids/${index}`) ?? '';
    if (NO_GID.test(gid)) return [];
    const type = files.text(`${port}/gid_attrs/types/${index}`) ?? 'unknown type';
    const netdev = files.text(`${port}/gid_attrs/ndevs/${index}`);
    return [`${index}: ${type} ${gid}${netdev ? ` (${netdev})` : ''}`];
  });
}

/** Where it is on PCI, and which GPUs are nearest to it there. */
function place({ name, pciAddress, gpus = [] }: Topology['nics'][number]): Finding {
  const topic = `${name} PCI`;
  if (!pciAddress) return { topic, state: 'note', found: 'no PCI device' };
  const nearest = gpus.filter(({ distance }) => distance === gpus[0].distance).map((gpu) => gpu.pciAddress);
  const near = nearest.length > 0 ? `; nearest GPUs (${gpus[0].distance}) ${nearest.join(', ')}` : '';
  return { topic, state: 'note', found: `${pciAddress}${near}` };
}

function ports(files: KernelFiles, device: string): Finding[] {
  const base = `${BASE}/${device}/ports`;
  return files.names(base).map((number): Finding => {
    const port = `${base}/${number}`;
    const word = (name: string) => /^\d+: (.*)$/.exec(files.text(`${port}/${name}`) ?? '')?.[1] ?? 'unknown';
    const state = word('state');
    const list = gids(files, port);
    const netdev = files.names(`${BASE}/${device}/device/net`)[0] ?? files.text(`${BASE}/${device}/parent`);
    const mtu = netdev && files.number(`sys/class/net/${netdev}/mtu`);
    const facts = [
      `${state}, ${word('phys_state')}`,
      files.text(`${port}/rate`),
      files.text(`${port}/link_layer`),
      mtu && `MTU of ${netdev} ${mtu}`,
      list.length > 0 ? `GIDs ${list.join(', ')}` : 'no GID',
    ];
    const topic = `${device} port ${number}`;
    const found = facts.filter(Boolean).join('; ');
    if (state === 'ACTIVE' && list.length > 0) return { topic, state: 'ok', found };
    return {
      topic,
      state: 'degraded',
      found,
      means: 'it is not used',
      mend:
        state === 'ACTIVE'
          ? 'give its network interface an address: ip addr add …'
          : 'ip link set the interface up, look at cable and switch; on InfiniBand a subnet manager must run',
    };
  });
}

/** All of one segment, to the start of another. */
function whole(source: number, destination: number): Descriptors {
  const bytes = allocateDescriptors(1);
  const record = new DataView(bytes.buffer, bytes.byteOffset + DESCRIPTOR_BYTES);
  record.setUint32(0, source, true);
  record.setUint32(4, destination, true);
  record.setBigUint64(24, BigInt(LOOPBACK_BYTES), true);
  return new Descriptors(bytes);
}

/** Two engines with this NIC alone; one writes to the other, and what arrived is compared. */
async function loopback(device: string): Promise<Finding> {
  const topic = `${device} loopback`;
  const engines: TransferEngine[] = [];
  try {
    const options = { transports: ['rdma'], rdma: { devices: device }, timeoutMs: LOOPBACK_MS };
    for (let side = 0; side < 2; side++) engines.push(await TransferEngine.create(options));
    const [from, to] = engines;
    const [ours, theirs] = await Promise.all(
      engines.map((engine) => engine.allocate(LOOPBACK_BYTES, { hugePages: false })),
    );
    // New memory is zeros on both sides: sums of it agree though nothing was written.
    randomFillSync(ours.memory);
    const peer = await from.open(to.name);
    const descriptors = whole(ours.id, peer.segments[0].id);
    const { verifiedBytes, milliseconds } = await from.write(peer, descriptors);
    if (Buffer.compare(ours.memory, theirs.memory) !== 0)
      throw errors.corrupt(`${topic}: what arrived is not what was sent`);
    const gigabytes = (verifiedBytes / milliseconds / 1e6).toFixed(2);
    return {
      topic,
      state: 'ok',
      found: `1 MiB written to itself and verified in ${milliseconds.toFixed(1)} ms (${gigabytes} GB/s)`,
    };
  } catch (error) {
    return {
      topic,
      state: 'degraded',
      found: (error as Error).message,
      means: 'this NIC moves nothing; the others go on',
      mend: 'what the message names; docs/rdma.md has the usual causes',
    };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

function peerMemory(files: KernelFiles, gpus: Topology['gpus']): Finding[] {
  if (gpus.length === 0) return [];
  const loaded = PEER_MEMORY.filter((module) => files.names(`sys/module/${module}`).length > 0);
  const topic = 'GPU memory';
  if (loaded.length > 0) return [{ topic, state: 'ok', found: `peer memory by ${loaded.join(', ')}` }];
  return [
    {
      topic,
      state: 'note',
      found: 'no peer memory module is loaded',
      means: 'NICs reach GPU memory by dma-buf alone, where driver and kernel have it',
      mend: 'modprobe nvidia_peermem',
    },
  ];
}

export async function rdmaFindings(files: KernelFiles, { nics, gpus }: Topology): Promise<Finding[]> {
  const devices = nics.filter(({ kind }) => kind === 'rdma');
  const findings = devices.flatMap((nic) => [place(nic), ...ports(files, nic.name)]);
  for (const { name, up } of devices) if (up) findings.push(await loopback(name));
  return [...findings, ...peerMemory(files, gpus)];
}
