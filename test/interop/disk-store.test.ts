/**
 * A store of ours that lends a disk, on the stock master and on ours: more is put than its memory holds, a stock client reads
 * all of it, objects come back to memory, and after a restart of the store what is on its disk is there again.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ConnectOptions, Keys, MooncakeStore } from 'mooncake-ts';
import { METHODS, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort, type Kind, Master } from './masters.js';

const reader = fileURLToPath(new URL('./disk_reader.py', import.meta.url));
const MIB = 2 ** 20;
const OBJECTS = 40;
const PATIENCE_MS = 30_000;
const WAIT_MS = 120_000;
/** No read outlives its lease, and nobody is taken for lost, on a slow machine either. */
const PATIENT = ['--default_kv_lease_ttl=5000', '--client_ttl=60'];

interface Found {
  code: number;
  known: number;
  alone: number;
  wrong: number[];
  wrongInBatch: number[];
}

function contentOf(n: number): Uint8Array {
  const value = new Uint8Array(MIB);
  for (let at = 0; at < MIB; at++) value[at] = at < 251 ? n * 31 + at * 7 : value[at - 251];
  return value;
}

async function within(done: () => Promise<boolean>): Promise<boolean> {
  const end = Date.now() + WAIT_MS;
  while (!(await done())) {
    if (Date.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

async function readByStock(master: Master): Promise<Found> {
  const args = [reader, `127.0.0.1:${master.port}`, `127.0.0.1:${await freePort()}`, `${OBJECTS}`];
  const printed = await new Promise<string>((resolve, reject) => {
    execFile(
      process.env.MOONCAKE_PYTHON!,
      args,
      { timeout: 120_000, killSignal: 'SIGKILL' },
      (error, stdout, stderr) =>
        error ? reject(new Error(`${error.message}\n${stderr.slice(-3000)}`)) : resolve(stdout),
    );
  });
  return JSON.parse(printed);
}

/** By the store itself, and by another that lends nothing. */
async function readByOurs(master: Master, owner: MooncakeStore) {
  const other = await MooncakeStore.connect({ master: `127.0.0.1:${master.port}` });
  try {
    const wrong: number[] = [];
    let missing = 0;
    for (let n = 0; n < OBJECTS; n++) {
      const read = async () => [await owner.get(`object-${n}`), await other.get(`object-${n}`)];
      let values = await read();
      // On a machine that stands still for a while a peer is taken for lost, until it is heard again: a miss that passes.
      for (
        const end = Date.now() + PATIENCE_MS;
        values.includes(undefined) && Date.now() < end;
        values = await read()
      ) {
        if (values.every((value) => value === undefined)) break;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      if (values.every((value) => value === undefined)) missing++;
      else if (!values.every((value) => value && Buffer.compare(value, contentOf(n)) === 0)) wrong.push(n);
    }
    return { wrong, missing };
  } finally {
    await other.close();
  }
}

async function scenario(kind: Kind): Promise<void> {
  const flags = [...PATIENT, '--enable_offload=true', '--promotion_on_hit=true'];
  const master = await Master.start(kind, flags);
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-disk-'));
  const connect = (segments: number) =>
    MooncakeStore.connect({
      master: `127.0.0.1:${master.port}`,
      segments,
      disk: { folder, capacityBytes: 256 * MIB, bucketBytes: 8 * MIB, heartbeatMs: 100 },
    });
  let store: MooncakeStore | undefined;
  try {
    store = await connect(16 * MIB);
    for (let n = 0; n < OBJECTS; n++) {
      const value = contentOf(n);
      const put = () =>
        store!.put(`object-${n}`, value).then(
          () => true,
          () => false,
        );
      assert.ok(await within(put), `object ${n} is put`);
    }
    const first = await readByStock(master);
    assert.equal([first.code, first.wrong, first.wrongInBatch], [0, [], []]);
    if (kind === 'ours') assert.is(first.known, OBJECTS);
    assert.equal(await readByOurs(master, store), { wrong: [], missing: OBJECTS - first.known });
    assert.ok(first.alone >= 16, `${first.alone} on the disk alone`);

    // Another process of the same folder: nothing is in memory, all is offered from the disk.
    await store.close();
    store = undefined;
    assert.ok(await within(async () => (await readByStock(master)).known === 0));
    store = await connect(64 * MIB);
    const again = await readByStock(master);
    assert.ok(again.known >= first.alone && again.alone === again.known, JSON.stringify(again));
    assert.equal([again.wrong, again.wrongInBatch], [[], []]);
    // It was read once and once more in a batch: some are promoted.
    assert.ok(await within(async () => (await readByStock(master)).alone < again.alone));
    const last = await readByStock(master);
    assert.equal([last.known, last.wrong, last.wrongInBatch], [again.known, [], []]);

    // A master that was restarted knows nothing until it is told again.
    await master.end();
    await master.restart();
    assert.ok(await within(async () => (await readByStock(master)).known === again.known));
  } finally {
    await store?.close();
    await master.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What objects have by now: keys with a copy on a disk, as the master says. */
async function onDisk(master: Master, keys: readonly string[]): Promise<string[]> {
  const rpc = await RpcClient.connect('127.0.0.1', master.port);
  try {
    const found = await rpc.call(METHODS.BatchGetReplicaList, { keys: Keys.from(keys), tenant: 'default' });
    return keys.filter((_, i) => {
      const answer = found[i];
      return answer.ok && answer.value.replicas.some(({ descriptor }) => descriptor.kind === 'localDisk');
    });
  } finally {
    rpc.close();
  }
}

/** Objects of the same size, of which some were written anew while the disk was away: without sums nobody could tell them apart. */
async function writtenAnew(kind: Kind): Promise<void> {
  const master = await Master.start(kind, [...PATIENT, '--enable_offload=true']);
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-disk-'));
  const address = { master: `127.0.0.1:${master.port}` };
  const disk = { folder, capacityBytes: 256 * MIB, bucketBytes: 8 * MIB, heartbeatMs: 100 };
  const keys = ['kept', 'unsummed', 'changed', 'same'];
  const stores: MooncakeStore[] = [];
  const connected = async (options: ConnectOptions) => {
    const store = await MooncakeStore.connect({ ...address, ...options });
    stores.push(store);
    return store;
  };
  try {
    const first = await connected({ segments: 16 * MIB, disk, checksum: false });
    for (const [n, key] of keys.entries()) await first.put(key, contentOf(n));
    assert.ok(await within(async () => (await onDisk(master, keys)).length === keys.length));
    await first.close();
    const other = await connected({ segments: 64 * MIB });
    const unsummed = await connected({ checksum: false });
    assert.ok(await within(() => unsummed.put('unsummed', contentOf(11)).catch(() => false)));
    assert.ok(await other.put('changed', contentOf(12)));
    assert.ok(await other.put('same', contentOf(3)));
    await connected({ segments: 16 * MIB, disk });
    assert.ok(await within(async () => (await onDisk(master, keys)).includes('kept')));
    const offered = await onDisk(master, keys);
    assert.not.ok(offered.includes('unsummed') || offered.includes('changed'), offered.join());
    const expected = [contentOf(0), contentOf(11), contentOf(12), contentOf(3)];
    const values = await unsummed.batchGet(keys);
    assert.ok(values.every((value, i) => value && Buffer.compare(value, expected[i]) === 0));
  } finally {
    for (const store of stores) await store.close();
    await master.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const kind of ['stock', 'ours'] as const) {
  test(`a store of ours with a disk on the ${kind} master, read by a stock client`, () => scenario(kind));
  test(`what was written anew is not offered from a disk, on the ${kind} master`, () => writtenAnew(kind));
}

test('a master without --enable_offload refuses a disk, and says why', async () => {
  const master = await Master.start('ours');
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-disk-'));
  try {
    const disk = { folder, capacityBytes: 256 * MIB };
    const error = await MooncakeStore.connect({ master: `127.0.0.1:${master.port}`, disk }).then(
      () => undefined,
      (reason) => reason,
    );
    assert.is(error?.code, 'ERR_NOT_SUPPORTED');
  } finally {
    await master.end();
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
