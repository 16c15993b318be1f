// What runs in the virtual machine: engines on soft-RoCE NICs, faults of NICs, and one child process where a peer has to die.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { type EnginePeer, type RdmaOptions, TransferEngine, type TransferEngineOptions } from 'mooncake-ts';
import { pattern } from '../../support/descriptors.js';

export const MiB = 2 ** 20;

// An emulated machine is slow to acknowledge, and slower when others use the processors: what is lost is what was sent too often.
process.env.MOONCAKE_RDMA_ACK_TIMEOUT ??= '17';
process.env.MOONCAKE_RDMA_STALL_MS ??= '6000';
process.env.MOONCAKE_RDMA_WINDOW ??= `${MiB}`;

/** Emulated, on machines that do other things besides. */
export const TIMEOUT_MS = 60_000;

export const nic = (...parts: (string | number)[]) => execFileSync('/run/nic', parts.map(String), { stdio: 'pipe' });

export const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** NICs `from` to `from + count - 1`. */
export const nics = (from: number, count: number) =>
  Array.from({ length: count }, (_, at) => `rxe${from + at}`).join(',');

export function engine(devices: string, options?: TransferEngineOptions): Promise<TransferEngine> {
  return TransferEngine.create({
    transports: ['rdma'],
    timeoutMs: TIMEOUT_MS,
    ...options,
    rdma: { ...options?.rdma, devices, gidIndex: 1 },
  });
}

export const links = (engine: TransferEngine) =>
  engine.statistics().links.filter(({ transport }) => transport === 'rdma');

/** Until so many links are up. The clock of an emulated machine runs ahead of what it gets done. */
export async function linked(engine: TransferEngine, count: number, timeoutMs = 90_000): Promise<void> {
  for (const until = Date.now() + timeoutMs; ; await sleep(20)) {
    const up = links(engine).filter(({ alive }) => alive).length;
    if (up === count) return;
    if (Date.now() > until) throw new Error(`${up} links, not ${count}: ${JSON.stringify(links(engine))}`);
  }
}

/** Variables for the engines that are made in `work`. */
export async function withSettings<T>(settings: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = { ...process.env };
  Object.assign(process.env, settings);
  try {
    return await work();
  } finally {
    for (const name of Object.keys(settings)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}

export interface Sides {
  a: TransferEngine;
  b: TransferEngine;
  peer: EnginePeer;
  ours: { id: number; memory: Uint8Array };
  theirs: { id: number; memory: Uint8Array };
}

/** Two engines with `rails` NICs each and `bytes` of memory, connected. */
export async function withSides(
  rails: number,
  bytes: number,
  work: (sides: Sides) => Promise<void>,
  rdma?: RdmaOptions,
): Promise<void> {
  const a = await engine(nics(0, rails), { rdma });
  const b = await engine(nics(rails, rails));
  try {
    const ours = await a.allocate(bytes);
    const theirs = await b.allocate(bytes);
    ours.memory.set(pattern(bytes, 7));
    const peer = await a.open(b.name);
    await linked(a, rails);
    await work({ a, b, peer, ours, theirs: { id: peer.segments[0].id, memory: theirs.memory } });
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}
