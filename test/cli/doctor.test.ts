// What doctor says of a made-up machine, whose files it reads, and of this one, whose calls it tries.
import { rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { makeKernelFiles, SERVER } from '../support/kernel-files.js';

interface Finding {
  topic: string;
  state: string;
  found: string;
  means?: string;
  mend?: string;
}

interface Report {
  topology: unknown;
  verification: Record<string, number | string>;
  findings: Finding[];
}

/** Of a machine with these files. */
async function examine(files: Record<string, string>) {
  const root = makeKernelFiles(files);
  const { code, stdout, stderr } = await run(['doctor', '--json', '--root', root]);
  rmSync(root, { recursive: true });
  assert.is(code, 0, stderr);
  const report = JSON.parse(stdout) as Report;
  return { ...report, finding: (topic: string) => report.findings.find((one) => one.topic === topic) };
}

test('the topology of a server: physical NICs, GPUs without consoles, NUMA nodes of each', async () => {
  const { topology } = await examine(SERVER);
  assert.equal(topology, {
    nodes: [
      { node: 0, cpus: [0, 1, 2, 3, 8], memoryBytes: 64 << 20 },
      { node: 1, cpus: [4, 5, 6, 7], memoryBytes: 32 << 20 },
    ],
    nics: [
      { name: 'ens1', kind: 'ethernet', node: 1, speedMbps: 25_000, up: true },
      { name: 'ens2', kind: 'ethernet', node: -1, up: false },
      { name: 'mlx5_0', kind: 'rdma', node: 1, speedMbps: 200_000, up: true },
    ],
    gpus: [{ name: 'NVIDIA H100 80GB HBM3', node: 0, pciAddress: '0000:17:00.0' }],
  });
});

test('limits that hold transfers back are degraded, with what follows and what to do', async () => {
  const { finding } = await examine(SERVER);
  assert.equal(finding('locked memory'), {
    topic: 'locked memory',
    state: 'degraded',
    found: 'limit 8 MiB',
    means: 'RDMA registers no more memory than that',
    mend: 'ulimit -l unlimited (limits.conf, or LimitMEMLOCK=infinity of the systemd unit)',
  });
  assert.is(finding('open files')?.state, 'degraded');
  assert.is(finding('open files')?.found, 'limit 1024');
  assert.match(finding('huge pages')?.found ?? '', '0 of 0 pages of 2 MiB free');
  assert.match(finding('process memory')?.found ?? '', 'ptrace scope 1 (descendants only)');
  assert.match(finding('network')?.found ?? '', 'ens1 up, 25 Gb/s, NUMA node 1; ens2 down');
  assert.match(finding('RDMA')?.found ?? '', 'mlx5_0 up, 200 Gb/s, NUMA node 1');
  assert.match(
    finding('GPUs')?.found ?? '',
    'NVIDIA H100 80GB HBM3 at 0000:17:00.0, NUMA node 0; NVIDIA driver 535.54.03',
  );
});

test('the same machine, mended', async () => {
  const { finding } = await examine({
    ...SERVER,
    'proc/self/limits':
      'Max open files            1048576    1048576   files\nMax locked memory         unlimited  unlimited  bytes',
    'sys/kernel/mm/transparent_hugepage/shmem_enabled': 'always within_size [advise] never deny force',
  });
  for (const topic of ['locked memory', 'open files', 'huge pages']) assert.is(finding(topic)?.state, 'ok', topic);
});

test('CAP_IPC_LOCK lifts the limit of locked memory', async () => {
  const { finding } = await examine({ ...SERVER, 'proc/self/status': 'CapEff:\t0000000000004000' });
  assert.equal(finding('locked memory'), { topic: 'locked memory', state: 'ok', found: 'limit 8 MiB, CAP_IPC_LOCK' });
});

test('a device whose node is not told is on the only one', async () => {
  const files = Object.entries(SERVER).filter(([name]) => !name.includes('node/node1'));
  const { topology } = await examine(Object.fromEntries(files));
  const { nics } = topology as { nics: { name: string; node: number }[] };
  assert.is(nics.find(({ name }) => name === 'ens2')?.node, 0);
});

test('a machine that tells nothing is examined all the same', async () => {
  const { findings, finding } = await examine({});
  assert.is(finding('RDMA')?.state, 'note');
  assert.is(finding('GPUs')?.state, 'note');
  assert.is(finding('locked memory'), undefined);
  for (const { topic, found } of findings) assert.ok(found.length > 0, topic);
});

test('without an active port RDMA is degraded', async () => {
  const { finding } = await examine({ ...SERVER, 'sys/class/infiniband/mlx5_0/ports/1/state': '1: DOWN' });
  assert.is(finding('RDMA')?.state, 'degraded');
  assert.match(finding('RDMA')?.found ?? '', 'mlx5_0 down, 200 Gb/s');
});

test('speeds of checksum and copies are measured', async () => {
  const { verification, finding } = await examine({});
  for (const name of ['checksum', 'copy', 'checkedCopy']) assert.ok(Number(verification[name]) > 1e6, name);
  assert.match(finding('verification')?.means ?? '', /^the 12.5 GB\/s .* take \d+\.\d cores .* \d+\.\d when none is$/);
});

test('a port that is taken is said to be', async () => {
  const server = createServer();
  // Taken by us or by another: taken.
  await new Promise<void>((resolve) => {
    server.once('error', () => resolve());
    server.listen(50051, '127.0.0.1', resolve);
  });
  const { finding } = await examine({});
  server.close();
  assert.is(finding('port 50051')?.state, 'note');
  assert.is(finding('port 50051')?.found, 'in use on 127.0.0.1');
});

test('the table: every topic with its state, and no control character of a file', async () => {
  const root = makeKernelFiles({
    ...SERVER,
    'proc/driver/nvidia/gpus/0000:17:00.0/information': 'Model: \u001b[2J evil',
  });
  const { code, stdout } = await run(['doctor', '--root', root], '', { NO_COLOR: '1' });
  const strict = await run(['doctor', '--root', root, '--strict']);
  rmSync(root, { recursive: true });
  assert.is(code, 0);
  assert.is(strict.code, 1);
  assert.match(
    stdout,
    /^degraded {2}locked memory {3}limit 8 MiB\n {25,}RDMA registers no more memory than that\n {25,}→ ulimit -l/m,
  );
  assert.match(stdout, '\\u001b[2J evil');
  assert.not.match(stdout, '\u001b');
  assert.match(stdout, /^Everything works; \d+ of \d+ could be better/m);
});

test.run();
