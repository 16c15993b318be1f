/** What registered memory can be: shared with other processes, in huge pages, on a NUMA node, locked. */
import type { NativeFeature } from '../native/addon.js';
import type { KernelFiles } from '../native/files.js';
import { type Finding, size } from './finding.js';

const HUGE = 'sys/kernel/mm/hugepages/hugepages-2048kB';
const THP = 'sys/kernel/mm/transparent_hugepage';
const CAP_IPC_LOCK = 14n;

/** The soft limit in a line of /proc/self/limits, Infinity for none; undefined where it is not there. */
export function limit(files: KernelFiles, name: string): number | undefined {
  const [, soft] = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(files.text('proc/self/limits') ?? '') ?? [];
  return soft === undefined ? undefined : soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
}

function capable(files: KernelFiles, capability: bigint): boolean {
  const [, mask] = /^CapEff:\s+([0-9a-f]+)/m.exec(files.text('proc/self/status') ?? '') ?? [];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> capability) & 1n) === 1n;
}

export function shared(memfd: NativeFeature | undefined): Finding[] {
  if (!memfd) return [];
  const topic = 'shared memory';
  if (memfd.usable) return [{ topic, state: 'ok', found: memfd.detail }];
  return [
    {
      topic,
      state: 'degraded',
      found: memfd.detail,
      means: 'processes on this machine cannot map each other’s segments',
      mend: 'allow memfd_create in the container’s seccomp profile',
    },
  ];
}

export function hugePages(files: KernelFiles, tried: NativeFeature | undefined): Finding[] {
  const [all, free] = [files.number(`${HUGE}/nr_hugepages`), files.number(`${HUGE}/free_hugepages`)];
  const transparent = files.chosen(`${THP}/shmem_enabled`);
  if (all === undefined && transparent === undefined) return [];
  const pages = `${free ?? 0} of ${all ?? 0} pages of 2 MiB free`;
  const found = `${pages}; transparent huge pages for shared memory: ${transparent ?? 'none'}`;
  const topic = 'huge pages';
  const explicit = tried ? tried.usable : (free ?? 0) > 0;
  if (explicit || ['always', 'within_size', 'advise', 'force'].includes(transparent ?? '')) {
    return [{ topic, state: 'ok', found }];
  }
  return [
    {
      topic,
      state: 'degraded',
      found: tried && (free ?? 0) > 0 ? `${found}; ${tried.detail}` : found,
      means: 'segments are of small pages, whose addresses take longer to translate',
      mend: `sysctl vm.nr_hugepages=N (N times 2 MiB), or echo advise > /${THP}/shmem_enabled`,
    },
  ];
}

export function lockLimit(files: KernelFiles, rdma: boolean): Finding[] {
  const bytes = limit(files, 'Max locked memory');
  if (bytes === undefined) return [];
  const free = bytes === Number.POSITIVE_INFINITY || capable(files, CAP_IPC_LOCK);
  const topic = 'locked memory';
  const found = bytes === Number.POSITIVE_INFINITY ? 'no limit' : `limit ${size(bytes)}`;
  if (free)
    return [{ topic, state: 'ok', found: bytes === Number.POSITIVE_INFINITY ? found : `${found}, CAP_IPC_LOCK` }];
  return [
    {
      topic,
      state: rdma ? 'degraded' : 'note',
      found,
      means: rdma ? 'RDMA registers no more memory than that' : 'enough without RDMA, which locks what it registers',
      ...(rdma && { mend: 'ulimit -l unlimited (limits.conf, or LimitMEMLOCK=infinity of the systemd unit)' }),
    },
  ];
}

export function placement(nodes: number, mbind: NativeFeature | undefined): Finding[] {
  if (!mbind) return [];
  const topic = 'NUMA placement';
  if (mbind.usable) return [{ topic, state: nodes > 1 ? 'ok' : 'note', found: mbind.detail }];
  return [
    {
      topic,
      state: nodes > 1 ? 'degraded' : 'note',
      found: mbind.detail,
      means: 'segments lie on whichever node touches them first',
      mend: 'give the container CAP_SYS_NICE, or allow mbind in its seccomp profile',
    },
  ];
}
