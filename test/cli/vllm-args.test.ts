// What `mooncake-ts vllm-args` prints. That vLLM takes it is shown in the lane vllm, whose engines are started with it.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main, run } from '../support/cli.js';

const folder = mkdtempSync(join(tmpdir(), 'mooncake-vllm-args-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(content));
  return path;
}

async function ask(...args: string[]) {
  const { code, stdout, stderr } = await run(['vllm-args', ...args, '--json'], '', { MOONCAKE_CONFIG_PATH: '' });
  assert.is(code, 0, stderr);
  return { ...JSON.parse(stdout), stderr };
}

async function refusal(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(['vllm-args', ...args], '', { MOONCAKE_CONFIG_PATH: '' });
  assert.is(code, 1, stdout);
  assert.is(stdout, '');
  return stderr;
}

test('prefill and decode with the stock connector, with every key of its guide', async () => {
  const flags = ['--connector', 'stock', '--num-workers', '4', '--protocol', 'rdma', '--device-name', 'mlx5_0,mlx5_1'];
  const ports = ['--bootstrap-port', '9100', '--abort-timeout', '60', '--host', '10.0.0.7'];
  const extra = { num_workers: 4, mooncake_protocol: 'rdma', device_name: 'mlx5_0,mlx5_1' };
  const prefill = await ask('prefill', ...flags, ...ports);
  assert.equal(prefill.kvTransferConfig, {
    kv_connector: 'MooncakeConnector',
    kv_role: 'kv_producer',
    kv_connector_extra_config: extra,
  });
  assert.equal(prefill.env, {
    PYTHONHASHSEED: '0',
    VLLM_HOST_IP: '10.0.0.7',
    VLLM_MOONCAKE_BOOTSTRAP_PORT: '9100',
    VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT: '60',
  });
  const decode = await ask('decode', ...flags, '--host', '::1');
  assert.equal(decode.kvTransferConfig, {
    kv_connector: 'MooncakeConnector',
    kv_role: 'kv_consumer',
    kv_load_failure_policy: 'recompute',
    kv_connector_extra_config: extra,
  });
  assert.equal(decode.env, { PYTHONHASHSEED: '0', VLLM_HOST_IP: '::1' });
  assert.equal((await ask('prefill', '--connector', 'stock')).env.VLLM_MOONCAKE_BOOTSTRAP_PORT, '8998');
});

test('a store with the stock connector: its file says what vLLM would take otherwise', async () => {
  const config = write('cluster.json', {
    local_hostname: 'node-a',
    metadata_server: 'http://10.0.0.1:8080/metadata',
    master_server_address: '10.0.0.1:50063',
    global_segment_size: '4GB',
    local_buffer_size: '2147483648',
    protocol: 'rdma',
    device_name: 'mlx5_0',
  });
  const store = await ask('store', '--connector', 'stock', '--config', config, '--file', '/etc/mooncake.json');
  assert.equal(store.kvTransferConfig, {
    kv_connector: 'MooncakeStoreConnector',
    kv_role: 'kv_both',
    kv_load_failure_policy: 'recompute',
  });
  assert.equal(store.env, { PYTHONHASHSEED: '0', MOONCAKE_CONFIG_PATH: '/etc/mooncake.json' });
  assert.equal(store.file, {
    path: '/etc/mooncake.json',
    content: {
      metadata_server: 'http://10.0.0.1:8080/metadata',
      master_server_address: '10.0.0.1:50063',
      protocol: 'rdma',
      device_name: 'mlx5_0',
      mode: 'embedded',
      global_segment_size: 4 * 2 ** 30,
      local_buffer_size: 2 ** 31,
      local_hostname: 'node-a',
    },
  });
  // An engine that lends nothing needs another mode, and somebody else who lends.
  const none = await ask('store', '--connector', 'stock', '--config', config, '--segment-size', '0');
  assert.is(none.file.content.mode, 'standalone-store');
  assert.is(none.file.content.global_segment_size, 0);
  assert.ok(none.beside.some((command: string) => command.startsWith('mooncake-ts store ')));
});

test('our connectors have the same class names, in their module, and no file', async () => {
  const multi = await ask('multi', '--role', 'prefill', '--service', '/run/m.sock');
  const { kvTransferConfig, beside } = multi;
  const module = { kv_connector_module_path: 'mooncake_ts_vllm', kv_role: 'kv_producer' };
  assert.equal(kvTransferConfig, {
    kv_connector: 'MultiConnector',
    ...module,
    kv_connector_extra_config: {
      mooncake_ts_service: '/run/m.sock',
      connectors: [
        { kv_connector: 'MooncakeConnector', ...module },
        { kv_connector: 'MooncakeStoreConnector', ...module },
      ],
    },
  });
  assert.is(multi.file, undefined);
  assert.equal(beside.slice(0, 2), [
    'mooncake-ts master --rpc_address 127.0.0.1 --port 50051',
    'MOONCAKE_MASTER=127.0.0.1:50051 MOONCAKE_GLOBAL_SEGMENT_SIZE=3355443200 mooncake-ts service --socket /run/m.sock',
  ]);
  const config = write('ours.json', {
    local_hostname: 'node-a',
    metadata_server: 'P2PHANDSHAKE',
    master_server_address: '[::1]:50063',
    global_segment_size: '0',
  });
  const file = await ask('store', '--config', config);
  assert.equal(file.beside, [
    'mooncake-ts master --rpc_address ::1 --port 50063',
    "mooncake-ts store --master_server_address '[::1]:50063' --global_segment_size 4GB",
    `mooncake-ts service --config ${config}`,
  ]);
  const direct = await ask('prefill');
  assert.is(direct.beside[0], 'mooncake-ts service --store 0');
});

test('multi with the stock connectors: the children have the role of the whole', async () => {
  const { kvTransferConfig, env, flags } = await ask('multi', '--connector', 'stock', '--role', 'decode');
  assert.equal(kvTransferConfig, {
    kv_connector: 'MultiConnector',
    kv_role: 'kv_consumer',
    kv_load_failure_policy: 'recompute',
    kv_connector_extra_config: {
      connectors: [
        {
          kv_connector: 'MooncakeConnector',
          kv_role: 'kv_consumer',
          kv_connector_extra_config: { mooncake_protocol: 'tcp' },
        },
        { kv_connector: 'MooncakeStoreConnector', kv_role: 'kv_consumer' },
      ],
    },
  });
  assert.is(env.MOONCAKE_CONFIG_PATH, 'mooncake.json');
  assert.equal(flags, ['--disable-log-stats']);
});

test("a V0 file and V0 arguments are said in today's form, with a notice", async () => {
  const old = {
    prefill_url: '10.0.0.1:13003',
    decode_url: '10.0.0.2:13003',
    metadata_server: '10.0.0.9:2379',
    metadata_backend: 'etcd',
    protocol: 'rdma',
    device_name: 'erdma_0',
  };
  const config = write('mooncake.json', old);
  const from = JSON.stringify({
    kv_connector: 'MooncakeConnector',
    kv_role: 'kv_consumer',
    kv_rank: 1,
    kv_parallel_size: 2,
    kv_buffer_size: 2e9,
  });
  const { kvTransferConfig, env, notices, beside, stderr } = await ask(
    ...['--connector', 'stock', '--config', config, '--from', from],
  );
  assert.equal(kvTransferConfig, {
    kv_connector: 'MooncakeConnector',
    kv_role: 'kv_consumer',
    kv_load_failure_policy: 'recompute',
    kv_connector_extra_config: { mooncake_protocol: 'rdma', device_name: 'erdma_0' },
  });
  assert.is(env.VLLM_HOST_IP, '10.0.0.2');
  for (const word of [
    'V0',
    'prefill_url 10.0.0.1:13003',
    'metadata_server 10.0.0.9:2379',
    'kv_rank',
    'kv_buffer_size',
  ]) {
    assert.ok(
      notices.some((notice: string) => notice.includes(word)),
      word,
    );
    assert.ok(stderr.includes(word), word);
  }
  assert.ok(beside.some((command: string) => command.includes('--prefill http://10.0.0.1:8100 8998')));

  // One address for both: the decode instance had the port plus 100.
  const same = write('same.json', { ...old, decode_url: old.prefill_url, metadata_backend: 'redis' });
  const { notices: both } = await ask('decode', '--config', same);
  assert.ok(both.some((notice: string) => notice.includes('decode_url 10.0.0.1:13103')));
  for (const metadata_backend of ['etcd', 'redis', 'http']) {
    await ask('prefill', '--config', write('backend.json', { ...old, metadata_backend }));
  }
  for (const [wrong, named] of [
    [{ ...old, decode_url: '10.0.0.1:13020' }, 'decode_url'],
    [{ ...old, prefill_url: 'nowhere' }, 'prefill_url'],
    [{ ...old, metadata_backend: 'zookeeper' }, 'metadata_backend'],
    [{ prefill_url: '10.0.0.1:13003' }, 'decode_url'],
  ] as const) {
    assert.match(await refusal('prefill', '--config', write('wrong.json', wrong)), named);
  }
});

test("today's arguments by --from: what has no flag is kept", async () => {
  const child = (kv_connector: string, kv_connector_extra_config: object) => ({
    kv_connector,
    kv_role: 'kv_producer',
    kv_connector_extra_config,
  });
  const connectors = [
    child('MooncakeConnector', {
      num_workers: 3,
      mooncake_protocol: 'rdma',
      bootstrap_server_address: '10.0.0.1:8998',
    }),
    child('MooncakeStoreConnector', { load_async: false, cache_prefix: 'blue' }),
  ];
  const old = {
    ...child('MultiConnector', { connectors }),
    engine_id: 'prefill-0',
    kv_ip: '127.0.0.1',
  };
  const { setup, kvTransferConfig, notices } = await ask('--connector', 'stock', '--from', JSON.stringify(old));
  assert.is(setup, 'multi');
  assert.equal(kvTransferConfig, { ...child('MultiConnector', { connectors }), engine_id: 'prefill-0' });
  assert.ok(notices.includes('kv_ip: without meaning today, left out'), notices);
});

test('what is wrong is named', async () => {
  assert.match(await refusal(), 'setup must be one of store, prefill, decode, multi');
  assert.match(await refusal('shop'), '"shop"');
  assert.match(await refusal('prefill', '--role', 'decode'), '--role must be prefill');
  assert.match(await refusal('--from', '{'), '--from must be JSON');
  assert.match(await refusal('--from', '{"kv_connector":"NixlConnector"}'), 'kv_connector');
  assert.match(
    await refusal('decode', '--from', '{"kv_connector":"MooncakeConnector","kv_role":"kv_producer"}'),
    'kv_role',
  );
  assert.match(await refusal('store', '--bootstrap-port', '70000'), '--bootstrap-port');
  assert.match(await refusal('store', '--master', 'nowhere'), '--master');
});

test('a script to paste: the shell reads what was meant', async () => {
  const args = [
    'vllm-args',
    'store',
    '--connector',
    'stock',
    '--file',
    join(folder, "it's here.json"),
    '--hash-seed',
    'a b',
  ];
  const { code, stdout, stderr } = await run(args, '', { MOONCAKE_CONFIG_PATH: '' });
  assert.is(code, 0, stderr);
  const { execFileSync } = await import('node:child_process');
  const probe = 'vllm() { printf "%s\\n" "$@"; }; MODEL=m\n';
  const after = '\ncat "$MOONCAKE_CONFIG_PATH"; printf "%s" "$PYTHONHASHSEED"';
  const printed = execFileSync('sh', ['-euc', probe + stdout + after], { encoding: 'utf8' });
  const lines = printed.split('\n');
  assert.equal(lines.slice(0, 3), ['serve', 'm', '--kv-transfer-config']);
  assert.is(JSON.parse(lines[3]).kv_connector, 'MooncakeStoreConnector');
  assert.is(JSON.parse(lines.slice(4, -1).join('\n')).master_server_address, '127.0.0.1:50051');
  assert.is(lines.at(-1), 'a b');
});

test('the adapter that its engines load comes with the package', () => {
  const adapter = join(dirname(main), '../../../integrations/vllm');
  for (const file of ['pyproject.toml', 'README.md', 'mooncake_ts_vllm/__init__.py', 'mooncake_ts_vllm/connector.py'])
    assert.ok(existsSync(join(adapter, file)), `${file} is missing`);
});

test.run();
