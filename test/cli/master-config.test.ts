// `mooncake-ts master --config_path`: JSON and YAML under the stock names, flags before the file, and where a value is from.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';

const folder = mkdtempSync(join(tmpdir(), 'mooncake-config-'));
test.after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

interface Row {
  name: string;
  value: string;
  from: string;
}

/** What is in force, by name. */
async function inForce(...flags: string[]): Promise<Map<string, Row>> {
  const { code, stdout, stderr } = await run(['master', '--print-config', '--json', ...flags]);
  assert.is(code, 0, stderr);
  const rows: Row[] = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  return new Map(rows.map((row) => [row.name, row]));
}

const YAML = `
# as the stock master's example
enable_metric_reporting: true
metrics_port: 19003
rpc_port: 50052
rpc_address: "0.0.0.0"
rpc_enable_tcp_no_delay: true
eviction_ratio: 0.1
client_live_ttl_sec: 7
default_kv_lease_ttl: 5s
enable_ha: false
etcd_endpoints: "http://localhost:2379"
`;

test('a file of either format is in force; a flag wins, by either name', async () => {
  const path = file('master.yaml', YAML);
  const rows = await inForce(`--config_path=${path}`, '--metrics_port=19004', '--port', '50053');
  const said = (name: string) => [rows.get(name)?.value, rows.get(name)?.from];
  assert.equal(said('rpc_address'), ['0.0.0.0', path]);
  assert.equal(said('client_ttl'), ['7', path], 'client_live_ttl_sec is what files call client_ttl');
  assert.equal(said('eviction_ratio'), ['0.1', path]);
  assert.equal(said('etcd_endpoints'), ['http://localhost:2379', path], 'also what has no effect here');
  assert.equal(said('metrics_port'), ['19004', 'flag']);
  assert.equal(said('rpc_port'), ['50053', 'flag'], '--port wins over rpc_port of the file');
  assert.equal(said('eviction_high_watermark_ratio'), ['0.90', 'default']);
  const json = file('master.json', JSON.stringify({ rpc_port: 50052, enable_metric_reporting: false }));
  const other = await inForce('--config_path', json);
  assert.equal(other.get('rpc_port')?.value, '50052');
  assert.equal(other.get('enable_metric_reporting')?.value, 'false');
});

test('a port of the metadata server from the file counts where a flag switches the server on', async () => {
  const path = file('ports.yaml', 'rpc_port: 0\nmetrics_port: 0\nhttp_metadata_server_port: 70000\n');
  const { code, stderr } = await run(['master', '--config_path', path, '--enable_http_metadata_server']);
  assert.is(code, 1);
  assert.match(stderr, /ports\.yaml: http_metadata_server_port must be an integer from 0 to 65535/);
});

test('what is wrong with a file is said with its name and that of the setting', async () => {
  for (const [name, text, wanted] of [
    ['a.yaml', 'rpc_prt: 1', /a\.yaml: rpc_prt is no setting of the master; did you mean rpc_port\?/],
    ['b.yaml', 'elephants: 1', /b\.yaml: elephants is no setting of the master \[/],
    ['c.json', '{"client_live_ttl_sec":"soon"}', /c\.json: client_live_ttl_sec must be a duration/],
    ['d.json', '{"enable_ha":true}', /d\.json: enable_ha is not supported.*ERR_NOT_SUPPORTED/],
    ['e.json', '{"rpc_port":', /e\.json is not JSON/],
    ['f.yaml', 'rpc: {port: 1}', /f\.yaml: rpc\.port is no setting/],
  ] as const) {
    const { code, stdout, stderr } = await run(['master', '--config_path', file(name, text)]);
    assert.is(code, 1, name);
    assert.match(stderr, wanted);
    assert.is(stdout, '', name);
  }
  const absent = await run(['master', '--config_path', join(folder, 'absent.yaml')]);
  assert.match(absent.stderr, /--config_path must be a file that can be read \(ENOENT\)/);
  assert.match((await run(['master', '--config_path'])).stderr, /--config_path must be the path/);
});

test('every flag that --help shows says its default, and one dash is taken as two', async () => {
  const rows = await inForce('-client_ttl=8', '-v=1', '-rpc_port', '4711');
  assert.equal([rows.get('client_ttl')?.value, rows.get('client_ttl')?.from], ['8', 'flag']);
  assert.is(rows.get('v')?.value, '1');
  assert.is(rows.get('rpc_port')?.value, '4711');
  const { stdout } = await run(['master', '--help']);
  const shown = [...stdout.matchAll(/^ {2}--([a-z]+_\w+)/gm)].map(([, name]) => name);
  const without = shown.filter((name) => !rows.has(name));
  assert.equal(without, ['config_path', 'rpc_interface'], 'these have none');
});

test.run();
