/**
 * The stock master's metrics and ours after the same calls: what ours has under a stock name must be in the stock master's
 * list, of the same type, and say the same, but for those below, which follow from decisions (docs/compatibility.md).
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { METHODS } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { replicateConfig } from '../support/replicate-config.js';
import { script, segment } from './master-script.js';
import { type Kind, Master } from './masters.js';

const LEASE_MS = 300;

/** Names whose values differ after the calls of the script, and why. */
const DECISIONS: Record<string, string> = {
  file_cache_nums_: 'who lends no disk is not believed to have written to it (D8)',
  master_allocated_file_size_bytes: 'as file_cache_nums_',
  master_copy_revoke_failures_total: 'a copy that a forced removal ended is known until its client has ended it (D9)',
  master_create_copy_task_failures_total: 'no task for what is being put, or for a key that is no text (D10)',
  master_create_move_task_failures_total: 'as master_create_copy_task_failures_total',
  master_get_replica_list_by_regex_failures_total: 'patterns are RE2: look-ahead is refused',
  master_get_replica_list_failures_total: 'content that is replaced stays readable; tenants are name spaces',
  master_mount_segment_failures_total: 'segments that nobody could reach, or that overlap, are refused',
  master_put_start_discard_cnt: 'an upsert into new space leaves no copies to discard',
  master_put_start_failures_total: 'what stock places in a segment of another, or throws at',
  master_remove_failures_total: 'forced is forced',
  master_unmount_segment_failures_total: 'a segment of another client is not unmounted',
  valid_get_nums_: 'as get_replica_list_failures',
};
/** Stock tries to evict in the background when a put finds no space; how often depends on the moment. */
const OF_THE_MOMENT = /evict(ed|ions)_|^master_key_count$/;

interface Metrics {
  types: Map<string, string>;
  /** By name and labels. */
  values: Map<string, number>;
}

function read(text: string): Metrics {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));
  const values = new Map(
    [...text.matchAll(/^([a-z_]+(?:\{.*\})?) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]),
  );
  return { types, values };
}

async function ask(master: Master, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${master.adminPort}${path}`);
  return { status: response.status, text: await response.text() };
}

async function metricsOf(kind: Kind): Promise<Metrics> {
  const master = await Master.start(kind, [`--default_kv_lease_ttl=${LEASE_MS}`]);
  const client = await master.connect();
  try {
    await script(client, LEASE_MS);
    return read((await ask(master, '/metrics')).text);
  } finally {
    client.close();
    await master.end();
  }
}

const isOwn = (name: string) => /^(mooncake|process)_/.test(name);

test('names that ours shares with the stock master mean the same', async () => {
  const [stock, ours] = [await metricsOf('stock'), await metricsOf('ours')];
  const shared = [...ours.values].filter(([name]) => !isOwn(name));
  assert.ok(shared.length > 80);
  for (const [name, type] of ours.types) {
    if (!isOwn(name) && !name.startsWith('segment_')) assert.is(stock.types.get(name), type, name);
  }
  const compared = shared.filter(([name]) => !OF_THE_MOMENT.test(name));
  const differences = compared.filter(([name, value]) => stock.values.get(name) !== value);
  assert.equal(differences.map(([name]) => name).sort(), Object.keys(DECISIONS).sort());
});

/** One client that lends a segment, an object in it that can be read, and one that is being written. */
async function lent(kind: Kind) {
  const master = await Master.start(kind);
  const client = await master.connect();
  const own = '1'.repeat(32);
  const memory = segment(own, 'host:1', 2n ** 32n, 2n ** 24n);
  const put = { client: own, size: 4096n, config: replicateConfig(), tenant: 'default' };
  try {
    await client.call(METHODS.MountSegment, { segment: memory, client: own });
    const mounted = read((await ask(master, '/metrics')).text).values.get('master_active_clients');
    assert.is(mounted, 0, 'a client counts once it has remounted');
    await client.call(METHODS.ReMountSegment, { segments: [memory], client: own });
    // The segment was not known before the mount: no fence.
    for (const key of ['read', 'written'].map((name) => Buffer.from(name))) {
      assert.ok((await client.call(METHODS.PutStart, { ...put, key } as never)).ok);
    }
    const object = { key: Buffer.from('read'), checksum: undefined };
    await client.call(METHODS.PutEnd, { client: own, object, replicaType: 4, tenant: 'default' } as never);
    const { values } = read((await ask(master, '/metrics')).text);
    const pages = await Promise.all(['/role', '/ha_status', '/leader', '/health'].map((path) => ask(master, path)));
    return { values: Object.fromEntries([...values].filter(([name]) => WATCHED.test(name))), pages };
  } finally {
    client.close();
    await master.end();
  }
}
const WATCHED = /^(segment_|master_(allocated|total_capacity)_bytes|master_key_count|mem_cache_nums_|master_active)/;

test('what is lent and stored, by segment, and what a master says of its role', async () => {
  const [stock, ours] = [await lent('stock'), await lent('ours')];
  assert.equal(ours, stock);
  assert.is(ours.values['segment_allocated_bytes{segment="host:1"}'], 8192);
  assert.equal([ours.values.master_key_count, ours.values.mem_cache_nums_], [2, 1]);
});

/** What a flag takes, where it does not take 0. */
const GOOD: Record<string, string> = {
  eviction_ratio: '0.1',
  eviction_high_watermark_ratio: '0.9',
  rpc_interface: '',
  snapshot_object_store_type: 'local',
  snapshot_catalog_store_type: 'embedded',
};

test('every flag of the stock master is taken', async () => {
  const stock = join(dirname(process.env.MOONCAKE_PYTHON!), 'mooncake_master');
  const { stdout } = spawnSync(stock, ['--helpfull'], { encoding: 'utf8' });
  const own = /Flags from \S*\/mooncake-store\/src\/master\.cpp:([\s\S]*?)\n\n/.exec(stdout)![1];
  const flags = [...own.matchAll(/^ +-(\w+) \(/gm)].map(([, name]) => name);
  assert.ok(flags.length > 80);
  const values = ['--dynamic_replication_mode=off', '--allocation_strategy=random'];
  const given = flags.map(
    (flag) => values.find((one) => one.startsWith(`--${flag}=`)) ?? `--${flag}=${GOOD[flag] ?? '0'}`,
  );
  const taken = await run(['master', '--print-config', ...given.filter((one) => !one.startsWith('--config_path'))]);
  assert.is(taken.code, 0, taken.stderr);
});
test.run();
