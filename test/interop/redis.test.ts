// Metadata in a real Redis, under the stock keys. The stock wheel is built without Redis: the peer here is redis-cli.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { PAIRS, withEngines } from '../support/engines.js';
import { skip } from '../support/skip.js';
import { Backend, certificate, failure, missing, withEnv } from './backends.js';

const absent = missing('redis-server', 'redis-cli', 'openssl');
const withRedis: (name: string, work: (redis: Backend) => Promise<void>, ...flags: string[]) => void = absent
  ? (name) => skip(test, name, `no ${absent}`, 'apt-get install redis-server openssl')
  : (name, work, ...flags) =>
      test(name, async () => {
        const redis = await Backend.redis(...flags);
        try {
          await work(redis);
        } finally {
          await redis.end();
        }
      });

const cli = (redis: Backend, ...words: string[]) =>
  execFileSync('redis-cli', ['-p', `${redis.port}`, ...words], { encoding: 'utf8', timeout: 60_000 }).trimEnd();
const keys = (redis: Backend, database = '0') =>
  cli(redis, '-n', database, 'KEYS', '*').split('\n').filter(Boolean).sort();

for (const pair of PAIRS) {
  withRedis(`${pair.name} find each other, under the stock keys`, async (redis) => {
    await withEngines(
      pair,
      async (a, b) => {
        const ours = await a.allocate(65_536, { name: 'é "quoted"\r\n' });
        const theirs = await b.allocate(65_536);
        const all = [a, b].flatMap(({ name }) => [`mooncake/ram/${name}`, `mooncake/rpc_meta/${name}`]);
        assert.equal(keys(redis), all.sort());
        const [host, port] = a.name.split(':');
        const place = JSON.parse(cli(redis, 'GET', `mooncake/rpc_meta/${a.name}`));
        assert.equal(place, { ip_or_host_name: host, rpc_port: Number(port) });
        const { name, buffers, mooncake_ts } = JSON.parse(cli(redis, '--raw', 'GET', `mooncake/ram/${a.name}`));
        assert.equal([name, buffers[0].name, buffers[0].length], [a.name, a.name, 65_536]);
        assert.is(mooncake_ts.segments[0].name, 'é "quoted"\r\n');
        const peer = await b.open(a.name);
        theirs.memory.set(pattern(65_536, 3));
        await b.write(peer, one(theirs.id, 0, peer.segments[0].id, 0, 65_536));
        assert.equal(ours.memory, pattern(65_536, 3));
      },
      { metadata: `redis://127.0.0.1:${redis.port}`, timeoutMs: 60_000 },
    );
    assert.equal(keys(redis), []);
  });
}

withRedis('what a stock engine has written is read', async (redis) => {
  const name = 'prefill-3:12345';
  const descriptor = {
    ...{ name, protocol: 'tcp', tcp_data_port: 4711, tcp_proto_version: 2, tcp_data_host: '127.0.0.1' },
    buffers: [{ name, addr: 140147366559744, length: 4096 }],
  };
  cli(redis, 'SET', `mooncake/ram/${name}`, `${JSON.stringify(descriptor)}\n`);
  cli(redis, 'SET', `mooncake/rpc_meta/${name}`, '{"ip_or_host_name":"127.0.0.1","rpc_port":4712}\n');
  const engine = await TransferEngine.create({ metadata: `redis://127.0.0.1:${redis.port}` });
  const peer = await engine.open(name);
  assert.equal([peer.segments[0].address, peer.segments[0].length], [140147366559744n, 4096]);
  const stranger = await failure(engine.open('nobody:1'));
  assert.is(stranger.code, 'ERR_PEER');
  assert.match(stranger.message, /has no mooncake\/ram\/nobody:1/);
  await engine.close();
});

withRedis(
  'sign-in by the setting or the environment, and databases',
  async (redis) => {
    const at = `127.0.0.1:${redis.port}`;
    const signIn = ['-a', 'hush:hush', '--no-auth-warning'];
    cli(redis, ...signIn, 'ACL', 'SETUSER', 'user', 'on', '>p@ss', '~*', '+@all');
    const bare = await failure(TransferEngine.create({ metadata: `redis://${at}` }));
    assert.is(bare.code, 'ERR_PEER');
    assert.match(bare.message, /NOAUTH/);
    for (const who of ['hush', ':wrong-secret', 'user:wrong-secret']) {
      const refused = await failure(TransferEngine.create({ metadata: `redis://${who}@${at}` }));
      assert.is(refused.code, 'ERR_PEER', who);
      assert.not.match(refused.message, /wrong-secret/);
    }
    const open = async (metadata: string, database: string, env: Record<string, string> = {}) => {
      const engine = await withEnv(env, () => TransferEngine.create({ metadata }));
      const found = cli(redis, ...signIn, '-n', database, 'DBSIZE');
      await engine.close();
      assert.is(found, '2', metadata);
    };
    await open(`redis://:hush%3Ahush@${at}/3`, '3');
    await open(`redis://user:p%40ss@${at}/0`, '0');
    await open(`redis://${at}`, '4', { MC_REDIS_PASSWORD: 'hush:hush', MC_REDIS_DB_INDEX: '4' });
    await open(`redis://${at}/5`, '5', {
      MC_REDIS_USERNAME: 'user',
      MC_REDIS_PASSWORD: 'p@ss',
      MC_REDIS_DB_INDEX: '4',
    });
    const beyond = await failure(TransferEngine.create({ metadata: `redis://:hush%3Ahush@${at}/16` }));
    assert.match(beyond.message, /SELECT was refused/);
  },
  ...['--requirepass', 'hush:hush'],
);

withRedis('a server that is full, still or gone is said; what is there works on', async (redis) => {
  const metadata = `redis://127.0.0.1:${redis.port}`;
  const [a, b] = [await TransferEngine.create({ metadata }), await TransferEngine.create({ metadata })];
  await a.allocate(4096);
  const { id } = await b.allocate(4096);
  const peer = await b.open(a.name);
  cli(redis, 'CONFIG', 'SET', 'maxmemory', '1');
  const full = await failure(a.allocate(4096));
  assert.is(full.code, 'ERR_PEER');
  assert.match(full.message, /SET was refused: OOM/);
  cli(redis, 'CONFIG', 'SET', 'maxmemory', '0');
  redis.pause();
  assert.is((await failure(peer.refresh())).code, 'ERR_TIMEOUT');
  redis.kill();
  assert.is((await failure(TransferEngine.create({ metadata }))).code, 'ERR_PEER');
  await b.write(peer, one(id, 0, peer.segments[0].id, 0, 4096));
  await redis.start();
  await a.allocate(4096, { name: 'later' });
  await peer.refresh();
  assert.ok(peer.segments.some(({ name }) => name === 'later'));
  await Promise.all([a.close(), b.close()]);
});

if (!absent) {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-tls-'));
  const { cert, key } = certificate(folder);
  test.after(() => rmSync(folder, { recursive: true }));
  withRedis(
    'TLS: the certificate is verified',
    async (redis) => {
      const metadata = `rediss://127.0.0.1:${redis.port}`;
      const stranger = await failure(TransferEngine.create({ metadata }));
      assert.is(stranger.code, 'ERR_PEER');
      assert.match(stranger.message, /self-signed/);
      const program =
        `import { TransferEngine } from 'mooncake-ts'; const engine = await TransferEngine.create({ metadata: '${metadata}' });` +
        "console.log((await (await TransferEngine.create({ metadata: 'p2p' })).open(engine.name)).name === engine.name); process.exit()";
      const env = { ...process.env, NODE_EXTRA_CA_CERTS: cert };
      const said = execFileSync(process.execPath, ['--input-type=module', '-e', program], { env, encoding: 'utf8' });
      assert.is(said.trim(), 'true');
    },
    ...[
      '--port',
      '0',
      '--tls-port',
      'PORT',
      '--tls-cert-file',
      cert,
      '--tls-key-file',
      key,
      '--tls-auth-clients',
      'no',
    ],
  );
}

test.run();
