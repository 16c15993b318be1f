/** What processes may do to each other and to files: process_vm_*, io_uring, open files. */
import type { NativeFeature } from '../native/addon.js';
import type { KernelFiles } from '../native/files.js';
import type { Finding } from './finding.js';
import { limit } from './memory.js';

const ENOUGH_FILES = 4096;

/** What Yama's values mean: Documentation/admin-guide/LSM/Yama.rst. */
const SCOPES: Record<number, string> = {
  0: 'any process of the same user',
  1: 'descendants only',
  2: 'administrators only',
  3: 'nobody',
};

export function processMemory(files: KernelFiles, peers: NativeFeature | undefined): Finding[] {
  const scope = files.number('proc/sys/kernel/yama/ptrace_scope');
  const yama = scope === undefined ? '' : `ptrace scope ${scope} (${SCOPES[scope] ?? 'unknown'})`;
  const topic = 'process memory';
  if (!peers) return yama ? [{ topic, state: 'note', found: yama }] : [];
  const found = [peers.detail, yama].filter(Boolean).join('; ');
  if (peers.usable) return [{ topic, state: 'ok', found }];
  return [
    {
      topic,
      state: 'degraded',
      found,
      means: 'memory that an engine registered, not allocated here, reaches local peers through one more copy',
      mend:
        scope !== undefined && scope > 0
          ? 'sysctl kernel.yama.ptrace_scope=0'
          : 'give the container CAP_SYS_PTRACE, or allow process_vm_readv and process_vm_writev in its seccomp profile',
    },
  ];
}

export function ioUring(files: KernelFiles, tried: NativeFeature | undefined): Finding[] {
  const disabled = files.number('proc/sys/kernel/io_uring_disabled') ?? 0;
  const topic = 'io_uring';
  if (!tried && disabled === 0) return [];
  if (tried?.usable) return [{ topic, state: 'ok', found: tried.detail }];
  return [
    {
      topic,
      state: 'degraded',
      found: [tried?.detail, disabled > 0 ? `kernel.io_uring_disabled is ${disabled}` : ''].filter(Boolean).join('; '),
      means: 'threads read and write the disk tier’s files',
      mend:
        disabled > 0 ? 'sysctl kernel.io_uring_disabled=0' : 'allow io_uring_setup in the container’s seccomp profile',
    },
  ];
}

export function openFiles(files: KernelFiles): Finding[] {
  const most = limit(files, 'Max open files');
  if (most === undefined) return [];
  const found = `limit ${most}`;
  if (most >= ENOUGH_FILES) return [{ topic: 'open files', state: 'ok', found }];
  return [
    {
      topic: 'open files',
      state: 'degraded',
      found,
      means: 'each peer takes some: a large cluster runs out',
      mend: `ulimit -n ${ENOUGH_FILES} or more`,
    },
  ];
}
