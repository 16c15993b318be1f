// What a support engineer would ask, of NICs that work and of one that does not.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../../support/cli.js';
import { nic } from './support.js';

interface Finding {
  topic: string;
  state: string;
  found: string;
}

test('doctor --rdma: ports, GIDs, MTU and locked memory; each NIC with a link writes to itself', async () => {
  nic('cable-out', 3);
  const { code, stdout, stderr } = await run(['doctor', '--rdma', '--json']);
  nic('cable-in', 3);
  assert.is(code, 0, stderr);
  const findings: Finding[] = JSON.parse(stdout).findings;
  const of = (topic: string) => findings.find((finding) => finding.topic === topic);
  for (const at of [0, 1, 2]) {
    const port = of(`rxe${at} port 1`);
    assert.is(port?.state, 'ok');
    assert.match(port!.found, new RegExp(`ACTIVE.*MTU of net${at} 4200.*1: RoCE v2 [0:]*ffff:0a4d:000${at + 1}`));
    const loopback = of(`rxe${at} loopback`);
    assert.is(loopback?.state, 'ok', loopback?.found);
    assert.match(loopback!.found, /1 MiB written to itself and verified/);
  }
  assert.is(of('rxe3 port 1')?.state, 'degraded');
  assert.match(of('rxe3 port 1')!.found, /DOWN/);
  assert.is(of('rxe3 loopback'), undefined);
  assert.match(of('locked memory')!.found, /no limit/);
});

test.run();
