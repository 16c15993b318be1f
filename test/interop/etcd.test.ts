// Metadata in a real etcd: stock engines and ours find each other by it; sign-in, TLS, members that are gone, and silence.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { create, PLANES } from '../support/engines.js';
import { skip } from '../support/skip.js';
import { Backend, certificate, failure, missing, withEnv } from './backends.js';
import { Stock } from './stock.js';

const absent = missing('etcd', 'openssl');
const withEtcd: (name: string, work: (etcd: Backend) => Promise<void>, ...flags: string[]) => void = absent
  ? (name) => skip(test, name, `no ${absent}`, 'apt-get install etcd-server openssl')
  : (name, work, ...flags) =>
      test(name, async () => {
        const etcd = await Backend.etcd(...flags);
        try {
          await work(etcd);
        } finally {
          await etcd.end();
        }
      });

const base64 = (text: string) => Buffer.from(text).toString('base64');

async function post(etcd: Backend, path: string, body: object) {
  const response = await fetch(`http://127.0.0.1:${etcd.port}/v3/${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  assert.is(response.status, 200, `${path}: ${await response.clone().text()}`);
  return response.json() as Promise<{ kvs?: { key: string; value: string }[] }>;
}

/** All that is stored, as etcd says it. */
async function stored(etcd: Backend): Promise<Record<string, { [field: string]: unknown }>> {
  const { kvs = [] } = await post(etcd, 'kv/range', { key: base64('\0'), range_end: base64('\0') });
  const text = (field: string) => Buffer.from(field, 'base64').toString();
  return Object.fromEntries(kvs.map(({ key, value }) => [text(key), JSON.parse(text(value))]));
}

for (const plane of PLANES) {
  withEtcd(`${plane.name}: a stock engine and ours move bytes both ways, under the same keys`, async (etcd) => {
    const metadata = `etcd://127.0.0.1:${etcd.port}`;
    await withEnv({ MC_METADATA_CLUSTER_ID: 'blue' }, async () => {
      const engine = await create(plane, { metadata, timeoutMs: 60_000 });
      const stock = await Stock.start(metadata);
      try {
        const theirs = await stock.allocate(65_536);
        const ours = await engine.allocate(65_536);
        const all = await stored(etcd);
        const names = [engine.name, stock.name];
        const keys = names.flatMap((name) => [`mooncake/blue/ram/${name}`, `mooncake/blue/rpc_meta/${name}`]);
        assert.equal(Object.keys(all).sort(), keys.sort());
        for (const kind of ['ram', 'rpc_meta']) {
          const [mine, its] = names.map((name) => Object.keys(all[`mooncake/blue/${kind}/${name}`]));
          const same = mine.filter((field) => field !== 'mooncake_ts').sort();
          assert.equal(same, its.sort(), `the fields of ${kind} are the stock ones`);
        }
        const peer = await engine.open(stock.name);
        ours.memory.set(pattern(65_536, 7));
        await engine.write(peer, one(ours.id, 0, peer.segments[0].id, 0, 65_536));
        ours.memory.fill(0);
        assert.is((await stock.transfer('write', engine.name, theirs, Number(ours.address), 65_536)).code, 0);
        assert.equal(ours.memory, pattern(65_536, 7));
      } finally {
        await stock.end();
        await engine.close();
      }
      assert.equal(await stored(etcd), {});
    });
  });
}

withEtcd('who does not sign in is told; who does goes on after the session has ended', async (etcd) => {
  await post(etcd, 'auth/user/add', { name: 'root', password: 'p@ss:w/ord' });
  await post(etcd, 'auth/user/grant', { user: 'root', role: 'root' });
  await post(etcd, 'auth/enable', {});
  const at = `127.0.0.1:${etcd.port}`;
  const secret = encodeURIComponent('p@ss:w/ord');
  const bare = await failure(TransferEngine.create({ metadata: `etcd://${at}` }));
  assert.is(bare.code, 'ERR_PEER');
  assert.match(bare.message, /user name is empty/);
  const wrong = await failure(TransferEngine.create({ metadata: `etcd://root:wrong-secret@${at}` }));
  assert.is(wrong.code, 'ERR_PEER');
  assert.match(wrong.message, /signing in as root/);
  assert.not.match(wrong.message, /wrong-secret/);
  const engine = await TransferEngine.create({ metadata: `etcd://root:${secret}@${at}` });
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-etcd-'));
  writeFileSync(join(folder, 'conf'), '# of the engines\nusername = root\npassword = p@ss:w/ord\n');
  const other = await withEnv({ MC_ETCD_CONF_FILE: join(folder, 'conf') }, () =>
    TransferEngine.create({ metadata: `etcd://${at}` }),
  );
  assert.is((await engine.open(other.name)).name, other.name);
  // Tokens are in the memory of the server.
  etcd.kill();
  await etcd.start();
  assert.is((await other.open(engine.name)).name, engine.name);
  await engine.allocate(4096);
  await Promise.all([engine.close(), other.close()]);
  rmSync(folder, { recursive: true });
});

withEtcd('credentials for a server without sign-in do no harm', async (etcd) => {
  const engine = await TransferEngine.create({ metadata: `etcd://root:x@127.0.0.1:${etcd.port}` });
  assert.equal(Object.keys(await stored(etcd)).length, 2);
  await engine.close();
});

withEtcd('a member that is away, or stands still, leaves it to the others', async (etcd) => {
  const still = await Backend.etcd();
  const metadata = `etcd://127.0.0.1:1,127.0.0.1:${still.port},127.0.0.1:${etcd.port}`;
  still.pause();
  const engine = await TransferEngine.create({ metadata });
  assert.equal(Object.keys(await stored(etcd)).length, 2);
  await engine.close();
  assert.equal(await stored(etcd), {});
  await still.end();
});

withEtcd(
  'without etcd engines cannot begin; those that are there work on, and publish when it is back',
  async (etcd) => {
    const metadata = `127.0.0.1:${etcd.port}`; // without a scheme, as stock takes it
    const [a, b] = [await TransferEngine.create({ metadata }), await TransferEngine.create({ metadata })];
    const { id } = await a.allocate(4096);
    const peer = await b.open(a.name);
    const { id: own } = await b.allocate(4096);
    etcd.pause();
    const silent = await failure(TransferEngine.create({ metadata }));
    assert.is(silent.code, 'ERR_TIMEOUT');
    etcd.kill();
    const gone = await failure(TransferEngine.create({ metadata }));
    assert.is(gone.code, 'ERR_PEER');
    assert.match(gone.message, new RegExp(`127\\.0\\.0\\.1:${etcd.port}.*ECONNREFUSED`));
    await b.write(peer, one(own, 0, peer.segments[0].id, 0, 4096));
    assert.type(id, 'number');
    await etcd.start();
    await a.allocate(4096, { name: 'later' });
    await peer.refresh();
    assert.ok(peer.segments.some(({ name }) => name === 'later'));
    await Promise.all([a.close(), b.close()]);
    assert.equal(await stored(etcd), {});
  },
);

if (!absent) {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-tls-'));
  const { cert, key } = certificate(folder);
  test.after(() => rmSync(folder, { recursive: true }));
  const flags = ['--cert-file', cert, '--key-file', key];
  withEtcd(
    'TLS: the certificate is verified',
    async (etcd) => {
      const at = `127.0.0.1:${etcd.port}`;
      const stranger = await failure(TransferEngine.create({ metadata: `etcd://https://${at}` }));
      assert.is(stranger.code, 'ERR_PEER');
      assert.match(stranger.message, /self-signed/);
      const engine = await withEnv({ MC_ETCD_TLS_CA_CERT: cert }, () =>
        TransferEngine.create({ metadata: `etcd://${at}` }),
      );
      const other = await withEnv({ MC_ETCD_TLS_INSECURE_SKIP_VERIFY: 'true' }, () =>
        TransferEngine.create({ metadata: `etcd://${at}` }),
      );
      assert.is((await engine.open(other.name)).name, other.name);
      await Promise.all([engine.close(), other.close()]);
    },
    ...flags,
  );
}

test.run();
