// `mooncake-ts master`: flags as the stock master has them, what it says, and how it stops.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { CommandProcess } from '../support/node-process.js';

const ANY = ['--port=0', '--metrics_port', '0'];

const start = (...args: string[]) => CommandProcess.start(['master', ...args]);

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`serves RPC, queries and metadata until ${signal}`, async () => {
    const { child, lines, exited } = await start(
      '--json',
      ...ANY,
      '--enable_http_metadata_server',
      '--http_metadata_server_port=0',
    );
    const { what, host, ports } = JSON.parse(lines[0]);
    assert.is(what, 'listening');
    assert.is(host, '127.0.0.1');
    const client = await RpcClient.connect(host, ports.rpc);
    assert.equal(await client.call(METHODS.ServiceReady, {}), { ok: true, value: '2.0.0' });
    const health = await fetch(`http://127.0.0.1:${ports.admin}/health`);
    assert.is(((await health.json()) as { status: string }).status, 'ok');
    assert.is((await fetch(`http://127.0.0.1:${ports.metadata}/metadata?key=k`)).status, 404);
    child.kill(signal);
    assert.is(await exited, code);
    assert.is((await client.closed).code, 'ERR_PEER');
  });
}

test('a request of an unknown version: the error of the protocol, counted, said once', async () => {
  const { child, lines, exited } = await start('--json', ...ANY);
  const { ports } = JSON.parse(lines[0]);
  const client = await RpcClient.connect('127.0.0.1', ports.rpc);
  // What a client of before 0.3.12 sends: the key alone.
  const old = { ...METHODS.ExistKey, arguments: METHODS.QuerySegmentStatus.arguments } as typeof METHODS.ExistKey;
  for (let i = 0; i < 3; i++) {
    try {
      await client.call(old, { name: 'key' } as never);
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /invalidArguments: invalid rpc arg/);
    }
  }
  const metrics = await (await fetch(`http://127.0.0.1:${ports.admin}/metrics`)).text();
  assert.match(metrics, /^mooncake_rpc_refused_total 3$/m);
  const refusals = lines.map((line) => JSON.parse(line)).filter(({ what }) => what === 'request-refused');
  assert.is(refusals.length, 1);
  assert.is(refusals[0].method, 'ExistKey');
  assert.is(refusals[0].code, '9dcffa76');
  assert.equal(refusals[0].expected, ['7cf91ed8']);
  client.close();
  child.kill('SIGTERM');
  await exited;
});

test('the stock flags, in both forms, mean what they mean there', async () => {
  const flags = [
    '--default_kv_lease_ttl',
    '1s',
    '--eviction_ratio=0.1',
    '--client_ttl',
    '10',
    '--rpc_thread_num=8',
    '--allocation_strategy=free_ratio_first',
    '--enable_ha=false',
    '--put_start_discard_timeout_sec',
    '30',
  ];
  const { child, lines, exited } = await start(...ANY, ...flags);
  assert.match(
    lines[0],
    /^[-:.\dTZ]+ info {2}master: RPC on 127\.0\.0\.1:\d+, metrics and queries on http:\/\/127\.0\.0\.1:\d+\/metrics$/,
  );
  const client = await RpcClient.connect('127.0.0.1', Number(/RPC on [^:]+:(\d+)/.exec(lines[0])![1]));
  const id = '1'.repeat(32);
  const segment = {
    id,
    name: 'n\u001b[31m',
    base: 2n ** 32n,
    size: 2n ** 20n,
    endpoint: 'e:1',
    protocol: 'tcp',
    hostId: '',
  };
  assert.ok((await client.call(METHODS.MountSegment, { segment, client: id })).ok);
  while (lines.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.match(
    lines[1],
    /^[-:.\dTZ]+ info {2}segment n\\u001b\[31m: 1048576 bytes/,
    'no control characters of strangers',
  );
  client.close();
  child.kill('SIGTERM');
  await exited;
});

test("a data directory is one master's, and outlives it", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'master-cli-'));
  try {
    for (const flags of [
      [`--data-dir=${folder}/a`],
      ['--enable_snapshot=true', '--snapshot_backup_dir', `${folder}/b`],
    ]) {
      const { child, exited } = await start('--json', ...ANY, ...flags);
      const second = await run(['master', ...ANY, ...flags]);
      assert.is(second.code, 1);
      assert.match(second.stderr, /another master uses it; give each master a folder of its own.*ERR_DATA_DIR/);
      child.kill('SIGTERM');
      assert.is(await exited, 143);
      const third = await start('--json', ...ANY, ...flags);
      third.child.kill('SIGTERM');
      assert.is(await third.exited, 143);
    }
    assert.ok(existsSync(join(folder, 'a', 'format')));
    assert.ok(existsSync(join(folder, 'b', 'mooncake-ts', 'format')));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('events have levels, and one that repeats is counted instead of written', async () => {
  const { child, lines, exited } = await start('--json', ...ANY);
  const { ports } = JSON.parse(lines[0]);
  const client = await RpcClient.connect('127.0.0.1', ports.rpc);
  for (let i = 1; i <= 50; i++) {
    const id = `${i}`.padStart(32, '0');
    const segment = {
      id,
      name: `n${i}`,
      base: 2n ** 32n,
      size: 4096n,
      endpoint: `e:${i}`,
      protocol: 'tcp',
      hostId: '',
    };
    assert.ok((await client.call(METHODS.MountSegment, { segment, client: id })).ok);
  }
  client.close();
  child.kill('SIGTERM');
  await exited;
  const events = lines.map((line) => JSON.parse(line));
  assert.is(events.filter(({ what }) => what === 'segment-mounted').length, 20);
  const { time, ...last } = events.at(-1);
  assert.equal(last, { level: 'warn', what: 'events-left-out', of: 'segment-mounted', count: 30 });
  assert.ok(Math.abs(Date.parse(time) - Date.now()) < 600_000);
});

test('--log-level leaves out what is less urgent', async () => {
  const { child, lines, exited } = await start('--json', '--log-level=warn', '--client_ttl=1', ...ANY);
  const { ports } = JSON.parse(lines[0]);
  const client = await RpcClient.connect('127.0.0.1', ports.rpc);
  const segment = {
    id: '1'.repeat(32),
    name: 'n',
    base: 2n ** 32n,
    size: 4096n,
    endpoint: 'e:1',
    protocol: 'tcp',
    hostId: '',
  };
  assert.ok((await client.call(METHODS.MountSegment, { segment, client: segment.id })).ok);
  while (lines.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  const { what, level } = JSON.parse(lines[1]);
  assert.equal([what, level], ['client-lost', 'warn'], 'segment-mounted is information');
  client.close();
  child.kill('SIGTERM');
  await exited;
  assert.match(
    (await run(['master', '--log-level=loud', ...ANY])).stderr,
    /--log-level must be one of "error", "warn"/,
  );
});

test('what it does not have is refused, and nothing is started', async () => {
  for (const [flag, wanted] of [
    ['--enable_ha=true', /--enable_ha.*ERR_NOT_SUPPORTED/],
    ['--offload_cap_ratio=2', /--offload_cap_ratio must be a number.*ERR_INVALID_ARGUMENT/],
    ['--enable_snapshot=yes', /--enable_snapshot must be given with --data-dir.*ERR_INVALID_ARGUMENT/],
    ['--snapshot_object_store_type=s3', /s3.*ERR_NOT_SUPPORTED/],
    ['--allocation_strategy=cxl', /cxl.*ERR_NOT_SUPPORTED/],
    ['--eviction_ratio=2', /--eviction_ratio must be a number above 0, at most 1.*ERR_INVALID_ARGUMENT/],
    ['--default_kv_lease_ttl=soon', /--default_kv_lease_ttl must be a duration.*ERR_INVALID_ARGUMENT/],
    ['--port=70000', /--port must be an integer from 0 to 65535.*ERR_INVALID_ARGUMENT/],
    ['--no_such_flag=1', /unknown option/],
  ] as const) {
    const result = await run(['master', ...ANY, flag]);
    assert.is(result.code, 1, flag);
    assert.match(result.stderr, wanted, flag);
    assert.is(result.stdout, '', flag);
  }
});

// Below /proc, as in automounted places, the system says ENOENT for a folder whose parent is there.
test('a data directory that cannot be made', async () => {
  const { code, stderr } = await run(['master', ...ANY, '--data-dir=/proc/no/such']);
  assert.is(code, 1);
  assert.match(stderr, /data directory \/proc\/no\/such: .*ENOENT.*ERR_DATA_DIR/);
});

test('a port that is taken, and --help', async () => {
  const { child, lines, exited } = await start('--json', ...ANY);
  const { ports } = JSON.parse(lines[0]);
  const second = await run(['master', `--port=${ports.rpc}`, '--metrics_port=0']);
  assert.is(second.code, 1);
  assert.match(second.stderr, /cannot listen on 127\.0\.0\.1:\d+: the port is in use \(EADDRINUSE\).*ERR_PEER/);
  child.kill('SIGTERM');
  await exited;
  const help = await run(['master', '--help']);
  assert.is(help.code, 0);
  for (const flag of [
    '--default_kv_lease_ttl',
    '--metrics_port',
    '--enable_http_metadata_server',
    '--stock-defaults',
  ]) {
    assert.match(help.stdout, flag);
  }
});

test.run();
