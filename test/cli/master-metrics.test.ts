// What /metrics says, and that the documentation and the dashboard speak of nothing else.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { MooncakeMaster } from 'mooncake-ts/master';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main } from '../support/cli.js';

const packageRoot = join(dirname(main), '../../..');
const ID = '1'.repeat(32);
const segment = {
  id: ID,
  name: 'a"b\n:1',
  base: 2n ** 32n,
  size: 2n ** 20n,
  endpoint: 'e:1',
  protocol: 'tcp',
  hostId: '',
};

async function withMaster(work: (client: RpcClient, page: (path: string) => Promise<string>) => Promise<void>) {
  const master = await MooncakeMaster.listen({ port: 0, adminPort: 0 });
  const { rpc, admin } = master.ports;
  const client = await RpcClient.connect('127.0.0.1', rpc);
  try {
    await work(client, async (path) => (await fetch(`http://127.0.0.1:${admin}${path}`)).text());
  } finally {
    client.close();
    await master.close();
  }
}

test('every line is Prometheus text, and a histogram adds up', () =>
  withMaster(async (client, page) => {
    await client.call(METHODS.MountSegment, { segment, client: ID });
    for (let i = 0; i < 5; i++) await client.call(METHODS.Ping, { client: ID });
    await client.call(METHODS.MountSegment, { segment: { ...segment, size: 0n }, client: ID });
    const text = await page('/metrics');
    for (const line of text.trimEnd().split('\n')) {
      assert.match(line, /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,le="[^"]+")?\})? [-+.\de]+)$/);
    }
    const value = (series: string) =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`${series} `))
          ?.split(' ')[1],
      );
    assert.is(value('segment_total_capacity_bytes{segment="a\\"b\\n:1"}'), 2 ** 20);
    assert.is(value('mooncake_rpc_calls_total{method="Ping"}'), 5);
    assert.is(value('mooncake_rpc_call_seconds_count{method="Ping"}'), 5);
    assert.is(value('mooncake_rpc_call_seconds_bucket{method="Ping",le="+Inf"}'), 5);
    assert.is(value('mooncake_rpc_call_failures_total{method="MountSegment"}'), 1);
    assert.equal([value('master_mount_segment_requests_total'), value('master_mount_segment_failures_total')], [2, 1]);
    assert.ok(value('process_resident_memory_bytes') > 2 ** 20);
    assert.match(await page('/metrics/summary'), /^Mem Storage: 0 B \/ 1\.00 MB \| Keys: 0 \| Clients: 1 \|/);
  }));

const names = (text: string) => new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));

test('the dashboard asks for metrics that are there, and the documentation names all of ours', () =>
  withMaster(async (client, page) => {
    await client.call(METHODS.Ping, { client: ID });
    const there = names(await page('/metrics'));
    const dashboard = readFileSync(join(packageRoot, 'docs/grafana/mooncake-master.json'), 'utf8');
    const asked = [...dashboard.matchAll(/\b([a-z_]+)(?:\{instance|, instance)/g)].map(([, name]) =>
      name.replace(/_bucket$/, ''),
    );
    assert.ok(asked.length > 30);
    assert.equal([...new Set(asked.filter((name) => !there.has(name)))], []);
    const documented = readFileSync(join(packageRoot, 'docs/metrics.md'), 'utf8');
    const ours = documented.slice(0, documented.indexOf('## Not there'));
    const missing = [...there].filter((name) => {
      const call = /^master_(.*?)_(requests|failures|partial_successes|items|failed_items)_total$/.exec(name)?.[1];
      return !ours.includes(`\`${name}\``) && !(call && ours.includes(`\`${call}\``));
    });
    assert.equal(missing, []);
  }));

test.run();
