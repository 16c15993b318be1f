// `mooncake-ts store`: flags, files and variables, what it says, what it serves, and how it stops.
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { CommandProcess } from '../support/node-process.js';

const folder = mkdtempSync(join(tmpdir(), 'mooncake-store-cli-'));
let master: MooncakeMaster;
let address = '';

test.before(async () => {
  master = await MooncakeMaster.listen({ port: 0, adminPort: 0, leaseTtlMs: 500 });
  address = `127.0.0.1:${master.ports.rpc}`;
});
test.after(async () => {
  await master.close();
  rmSync(folder, { recursive: true, force: true });
});

const lent = () => master.service.segments().reduce((total, segment) => total + segment.length, 0);

/** What it serves, from its first line. */
async function started(args: readonly string[], env?: Record<string, string>) {
  const node = await CommandProcess.start(['store', '--json', '--port', '0', ...args], env);
  return { node, ...(JSON.parse(node.lines[0]) as { url: string; name: string; master: string; bytes: number }) };
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`lends memory and serves until ${signal}`, async () => {
    const flags = [`--master_server_address=${address}`, '--global_segment_size', '32MB', '--threads=4'];
    const { node, url, bytes, ...said } = await started(flags);
    assert.is(said.master, address);
    assert.is(bytes, 32 * 2 ** 20);
    assert.is(lent(), bytes);
    const put = await fetch(`${url}/api/put`, { method: 'PUT', body: '{"key":"k","value":"v"}' });
    assert.is(await put.text(), '{"status": "success"}');
    assert.is(await (await fetch(`${url}/api/get/k`)).text(), 'v');
    assert.is(await (await fetch(`${url}/health`)).text(), 'OK');
    assert.is(await node.end(signal), code);
    assert.is(lent(), 0, 'the master was told');
  });
}

test('a file, the variables, -D and flags: each wins over those before it', async () => {
  const wrong = '127.0.0.1:1';
  const json = join(folder, 'mooncake.json');
  writeFileSync(
    json,
    JSON.stringify({
      local_hostname: 'localhost:12345',
      metadata_server: 'P2PHANDSHAKE',
      master_server_address: wrong,
      global_segment_size: '16MB',
      protocol: 'TCP',
      device_name: '',
      another_name: 'for others',
    }),
  );
  const yaml = join(folder, 'mooncake.yaml');
  writeFileSync(
    yaml,
    `local_hostname: 127.0.0.1\nmetadata_server: P2PHANDSHAKE\nmaster_server_address: ${address}\nglobal_segment_size: 48MB # of ours\n`,
  );
  const variables = { MOONCAKE_MASTER: address, MOONCAKE_GLOBAL_SEGMENT_SIZE: '16777216' };
  for (const [args, env, bytes] of [
    [[], variables, 16],
    [['--config', yaml], { MOONCAKE_MASTER: wrong }, 48],
    [['-D', 'global_segment_size=32MB', '--config', yaml], {}, 32],
    [
      [`-Dmaster_server_address=${address}`, '--global_segment_size=0', '-Dglobal_segment_size=1GB'],
      { MOONCAKE_CONFIG_PATH: json },
      0,
    ],
  ] as const) {
    const { node, ...said } = await started(args, env);
    assert.is(said.bytes, bytes * 2 ** 20);
    assert.is(await node.end(), 143);
  }
});

test('what cannot be is said in one line, with its name and where it came from', async () => {
  const bad = join(folder, 'bad.yaml');
  writeFileSync(bad, 'local_hostname: a\nlocal_hostname: b\n');
  const part = join(folder, 'part.json');
  writeFileSync(part, '{"master_server_address": "127.0.0.1:1"}');
  const list = join(folder, 'list.conf');
  writeFileSync(list, ' {"protocol": ["tcp"]}');
  const there = [`--master_server_address=${address}`, '--port=0'];
  for (const [args, env, wanted] of [
    [['--config', bad], {}, /bad\.yaml is not YAML: Map keys must be unique at line 2/],
    [['--config', part], {}, /part\.json does not say local_hostname/],
    [['--config', list], {}, /list\.conf: protocol must be a text/],
    [['--config', folder], {}, /--config must be a file/],
    [
      [],
      { MOONCAKE_CONFIG_PATH: join(folder, 'none') },
      /MOONCAKE_CONFIG_PATH must be a file that can be read \(ENOENT\)/,
    ],
    [
      [],
      { MOONCAKE_MASTER: address, MOONCAKE_GLOBAL_SEGMENT_SIZE: 'lots' },
      /MOONCAKE_GLOBAL_SEGMENT_SIZE must be bytes/,
    ],
    [['-Dno_such=1'], {}, /-D must be name=value/],
    [['--host=0.0.0.0'], {}, /local_hostname must be an address that peers can connect to/],
    [['--max-wait-time=0', '--master_server_address=127.0.0.1:1'], {}, /no master answers there.*ERR_PEER/],
    [[...there, '--protocol=rdma'], {}, /protocol rdma.*ERR_NOT_SUPPORTED/],
    [[...there, '--enable_offload=true'], {}, /ssd_offload_path.*ERR_INVALID_ARGUMENT/],
    [[...there, '--enable_offload=true', `-Dssd_offload_path=${folder}`], {}, /enable_offload.*ERR_NOT_SUPPORTED/],
    [[...there, '--global_segment_size=4000TB'], {}, /this machine has \d+ bytes.*ERR_OUT_OF_MEMORY/],
    [[...there, `--port=${master.ports.admin}`, '--global_segment_size=16MB'], {}, /EADDRINUSE.*ERR_PEER/],
    [[...there, '--grace=never'], {}, /--grace must be an integer/],
  ] as const) {
    const { code, stderr, stdout } = await run(['store', ...args], '', env);
    assert.is(code, 1, stderr);
    assert.match(stderr, wanted);
    assert.is(stdout, '');
  }
  assert.is(lent(), 0);
});

test('a master that is lost, and its return, are said', async () => {
  let away = await MooncakeMaster.listen({ port: 0, adminPort: 0 });
  const { rpc } = away.ports;
  const { node } = await started([`--master_server_address=127.0.0.1:${rpc}`, '--global_segment_size=16MB']);
  const said = async (wanted: RegExp) => {
    while (!wanted.test(node.stderr)) await once(node.child.stderr!, 'data');
  };
  await away.close();
  await said(/the master at 127\.0\.0\.1:\d+ cannot be reached/);
  away = await MooncakeMaster.listen({ port: rpc, adminPort: 0 });
  await said(/the master at 127\.0\.0\.1:\d+ answers again/);
  assert.is(await node.end('SIGTERM'), 143);
  await away.close();
});

test('--grace: nothing new is placed, what is there can be read; a second signal ends it', async () => {
  const { node, url } = await started([
    `--master_server_address=${address}`,
    '--global_segment_size=16MB',
    '--grace=600',
  ]);
  await fetch(`${url}/api/put`, { method: 'PUT', body: '{"key":"grace","value":"v"}' });
  node.child.kill('SIGTERM');
  while (!node.stderr.includes('leaving')) await new Promise((resolve) => setTimeout(resolve, 5));
  while (!master.service.segments().every(({ isLeaving }) => isLeaving))
    await new Promise((resolve) => setTimeout(resolve, 5));
  assert.is(await (await fetch(`${url}/api/get/grace`)).text(), 'v');
  const put = await fetch(`${url}/api/put`, { method: 'PUT', body: '{"key":"new","value":"v"}' });
  assert.is(put.status, 500);
  assert.match(put.headers.get('x-mooncake-error')!, /ERR_NO_SPACE/);
  assert.is(await node.end('SIGTERM'), 143);
  assert.is(lent(), 0);
});

test('waits for a master that is not there yet', async () => {
  const late = await MooncakeMaster.listen({ port: 0, admin: false });
  const { rpc } = late.ports;
  await late.close();
  const node = started([`--master_server_address=127.0.0.1:${rpc}`, '--global_segment_size=16MB']);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const again = await MooncakeMaster.listen({ port: rpc, admin: false });
  const { bytes, ...there } = await node;
  assert.is(bytes, 16 * 2 ** 20);
  await there.node.end();
  await again.close();
});

test.run();
