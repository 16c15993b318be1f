/** A machine's /proc and /sys, made up: what `mooncake-ts doctor --root` reads. */
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';

/** Writes the files below a new folder, and `links` to what they name; its path. */
export function makeKernelFiles(files: Record<string, string>, links: Record<string, string> = {}): string {
  const root = mkdtempSync(join(tmpdir(), 'kernel-files-'));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), `${text}\n`);
  }
  for (const [name, target] of Object.entries(links)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    symlinkSync(relative(dirname(join(root, name)), join(root, target)), join(root, name));
  }
  return root;
}

/** A server: two NUMA nodes, Ethernet and RDMA on different ones, a GPU, and tight limits. */
export const SERVER = {
  'proc/self/limits':
    'Limit                     Soft Limit           Hard Limit           Units     \n' +
    'Max open files            1024                 1048576              files     \n' +
    'Max locked memory         8388608              8388608              bytes     ',
  'proc/self/status': 'Name:\tnode\nCapEff:\t0000000000000000',
  'proc/sys/kernel/yama/ptrace_scope': '1',
  'proc/driver/nvidia/version':
    'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023',
  'proc/driver/nvidia/gpus/0000:17:00.0/information': 'Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18',
  'sys/bus/pci/devices/0000:17:00.0/class': '0x030200',
  'sys/bus/pci/devices/0000:17:00.0/vendor': '0x10de',
  'sys/bus/pci/devices/0000:17:00.0/device': '0x2330',
  'sys/bus/pci/devices/0000:17:00.0/numa_node': '0',
  'sys/bus/pci/devices/0000:02:00.0/class': '0x030000',
  'sys/bus/pci/devices/0000:02:00.0/vendor': '0x1a03',
  'sys/bus/pci/devices/0000:01:00.0/class': '0x020000',
  'sys/bus/pci/devices/0000:01:00.0/vendor': '0x15b3',
  'sys/class/infiniband/mlx5_0/device/numa_node': '1',
  'sys/class/infiniband/mlx5_0/ports/1/state': '4: ACTIVE',
  'sys/class/infiniband/mlx5_0/ports/1/rate': '200 Gb/sec (4X HDR)',
  'sys/class/net/docker0/type': '1',
  'sys/class/net/docker0/operstate': 'up',
  'sys/class/net/docker0/bridge/stp_state': '0',
  'sys/class/net/ens1/type': '1',
  'sys/class/net/ens1/operstate': 'up',
  'sys/class/net/ens1/speed': '25000',
  'sys/class/net/ens1/device/numa_node': '1',
  'sys/class/net/ens2/type': '1',
  'sys/class/net/ens2/operstate': 'down',
  'sys/class/net/ens2/speed': '-1',
  'sys/class/net/ens2/device/numa_node': '-1',
  'sys/class/net/lo/type': '772',
  'sys/class/net/lo/operstate': 'unknown',
  'sys/class/net/veth1/type': '1',
  'sys/class/net/veth1/operstate': 'up',
  'sys/devices/system/node/node0/cpulist': '0-3,8',
  'sys/devices/system/node/node0/meminfo': 'Node 0 MemTotal:       65536 kB\nNode 0 MemFree:        1024 kB',
  'sys/devices/system/node/node1/cpulist': '4-7',
  'sys/devices/system/node/node1/meminfo': 'Node 1 MemTotal:       32768 kB',
  'sys/devices/system/node/possible': '0-1',
  'sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages': '0',
  'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '0',
  'sys/kernel/mm/transparent_hugepage/shmem_enabled': 'always within_size advise [never] deny force',
};
