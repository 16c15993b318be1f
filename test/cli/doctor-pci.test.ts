// Which GPUs are near which NICs on PCI: sysfs of made-up machines, whose links lead into a tree of bridges.
import { rmSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { makeKernelFiles } from '../support/kernel-files.js';

interface Nic {
  name: string;
  pciAddress?: string;
  gpus?: { pciAddress: string; distance: string }[];
}

interface Machine {
  /** By address and by name: the folder of each below `sys/devices`; '': it has none. */
  gpus?: Record<string, { node: number; path: string }>;
  nics: Record<string, { node: number; path: string }>;
}

/** What doctor says; no NIC has a link, so that none is tried. */
async function examine({ gpus = {}, nics }: Machine) {
  const files: Record<string, string> = {
    'sys/devices/system/node/node0/cpulist': '0',
    'sys/devices/system/node/node1/cpulist': '1',
  };
  const links: Record<string, string> = {};
  for (const [address, { node, path }] of Object.entries(gpus)) {
    const facts = { class: '0x030200', vendor: '0x10de', device: '0x2330', numa_node: String(node) };
    for (const [name, text] of Object.entries(facts)) files[`sys/devices/${path}/${name}`] = text;
    links[`sys/bus/pci/devices/${address}`] = `sys/devices/${path}`;
  }
  for (const [name, { node, path }] of Object.entries(nics)) {
    files[`sys/class/infiniband/${name}/ports/1/state`] = '1: DOWN';
    if (path === '') continue;
    files[`sys/devices/${path}/numa_node`] = String(node);
    links[`sys/class/infiniband/${name}/device`] = `sys/devices/${path}`;
  }
  const root = makeKernelFiles(files, links);
  const { code, stdout, stderr } = await run(['doctor', '--rdma', '--json', '--root', root]);
  rmSync(root, { recursive: true });
  assert.is(code, 0, stderr);
  const report = JSON.parse(stdout) as { topology: { nics: Nic[] }; findings: { topic: string; found: string }[] };
  return {
    nic: (name: string) => report.topology.nics.find((nic) => nic.name === name),
    said: (name: string) => report.findings.find(({ topic }) => topic === `${name} PCI`)?.found,
  };
}

const SWITCH = 'pci0000:3a/0000:3a:00.0/0000:3b:00.0';
const GPUS = {
  '0000:3d:00.0': { node: 0, path: `${SWITCH}/0000:3c:04.0/0000:3d:00.0` },
  '0000:41:00.0': { node: 0, path: `${SWITCH}/0000:3c:05.0/0000:3f:00.0/0000:40:00.0/0000:41:00.0` },
  '0000:51:00.0': { node: 0, path: 'pci0000:3a/0000:3a:02.0/0000:51:00.0' },
  '0000:5e:00.0': { node: 0, path: 'pci0000:5d/0000:5d:00.0/0000:5e:00.0' },
  '0000:af:00.0': { node: 1, path: 'pci0000:ae/0000:ae:00.0/0000:af:00.0' },
};

test('GPUs are at the distances that nvidia-smi topo tells, nearest first', async () => {
  // Named in another order than they are near.
  const gpus = Object.fromEntries(Object.entries(GPUS).reverse());
  const { nic, said } = await examine({
    gpus,
    nics: { mlx5_0: { node: 0, path: `${SWITCH}/0000:3c:08.0/0000:3e:00.1` } },
  });
  assert.equal(nic('mlx5_0')?.gpus, [
    { pciAddress: '0000:3d:00.0', distance: 'PIX' },
    { pciAddress: '0000:41:00.0', distance: 'PXB' },
    { pciAddress: '0000:51:00.0', distance: 'PHB' },
    { pciAddress: '0000:5e:00.0', distance: 'NODE' },
    { pciAddress: '0000:af:00.0', distance: 'SYS' },
  ]);
  assert.is(nic('mlx5_0')?.pciAddress, '0000:3e:00.1');
  assert.is(said('mlx5_0'), '0000:3e:00.1; nearest GPUs (PIX) 0000:3d:00.0');
});

test('of several that are as near all are named; a part of a NIC is where the NIC is', async () => {
  const { '0000:5e:00.0': one, '0000:af:00.0': far } = GPUS;
  const gpus = {
    '0000:5e:00.0': one,
    '0000:5f:00.0': { ...one, path: 'pci0000:5d/0000:5d:01.0/0000:5f:00.0' },
    '0000:af:00.0': far,
  };
  const { said } = await examine({
    gpus,
    nics: { mlx5_2: { node: 0, path: 'pci0000:5d/0000:5d:02.0/0000:60:00.0/mlx5_core.sf.4' } },
  });
  assert.is(said('mlx5_2'), '0000:60:00.0; nearest GPUs (PHB) 0000:5e:00.0, 0000:5f:00.0');
});

test('what is virtual, or tells too little, is at no distance', async () => {
  const { nic, said } = await examine({
    gpus: { '0000:5e:00.0': GPUS['0000:5e:00.0'] },
    nics: {
      rxe0: { node: 0, path: '' },
      siw0: { node: 0, path: 'virtual/net/tap0' },
      mlx5_3: { node: -1, path: 'pci0000:10/0000:10:00.0' },
    },
  });
  for (const name of ['rxe0', 'siw0']) {
    assert.is(nic(name)?.pciAddress, undefined);
    assert.is(nic(name)?.gpus, undefined);
    assert.is(said(name), 'no PCI device');
  }
  assert.is(nic('mlx5_3')?.gpus, undefined);
  assert.is(said('mlx5_3'), '0000:10:00.0');
});

test('a link that leads to another device tells nothing of where a GPU is', async () => {
  const { nic } = await examine({
    gpus: { '0000:77:00.0': GPUS['0000:5e:00.0'] },
    nics: { mlx5_0: { node: 0, path: 'pci0000:5d/0000:5d:02.0/0000:60:00.0' } },
  });
  assert.is(nic('mlx5_0')?.pciAddress, '0000:60:00.0');
  assert.is(nic('mlx5_0')?.gpus, undefined);
});

test.run();
