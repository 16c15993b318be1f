/**
 * A master that is killed under load, again and again, with a data directory and without. Its clients are ours over
 * Mooncake's RPC; bytes are not moved, but who may touch which is followed for all of them in this one process.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { METHODS, type Packed, RpcClient } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { main } from '../support/cli.js';
import { replicateConfig } from '../support/replicate-config.js';

const CLIENTS = 3;
const LENGTH = 2 ** 26;
const BATCH = 8;
const KILLS = 3;
const LEASE_MS = 500;
const TENANT = 'default';
const CONFIG = replicateConfig();

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const folder = mkdtempSync(join(tmpdir(), 'master-restart-'));
const running = new Set<ChildProcess>();
test.after(() => {
  for (const child of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

class Master {
  readonly events: Record<string, unknown>[] = [];
  port = 0;
  #child!: ChildProcess;

  constructor(readonly flags: readonly string[]) {}

  async start(): Promise<void> {
    const flags = ['--json', '--port=0', '--metrics_port=0', `--default_kv_lease_ttl=${LEASE_MS}ms`, ...this.flags];
    const child = spawn(process.execPath, [main, 'master', ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    running.add(child);
    const ended = once(child, 'exit').then(() => running.delete(child));
    this.port = 0;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line);
      this.events.push(event);
      if (event.what === 'listening') this.port = event.ports.rpc;
    });
    while (this.port === 0) {
      assert.ok(running.has(child), `the master ended: ${JSON.stringify(this.events)}`);
      await Promise.race([wait(10), ended]);
    }
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}

interface Content {
  checksum: bigint;
  place: string;
}

/** What is known of every key, whoever put it: acknowledged, or in doubt because an answer never came. */
class Truth {
  readonly kept = new Map<string, Content>();
  readonly doubtful = new Set<string>();
  /** First and last byte of what somebody reads or writes, by endpoint. */
  readonly taken = new Map<string, [start: number, end: number, key: string][]>();

  take(place: string, size: number, key: string): void {
    const [endpoint, address] = place.split(' ');
    const start = Number(address);
    const ranges = this.taken.get(endpoint) ?? [];
    this.taken.set(endpoint, ranges);
    for (const [from, to, owner] of ranges) {
      assert.ok(start + size <= from || to <= start, `${key} was given bytes of ${owner} at ${place}`);
    }
    ranges.push([start, start + size, key]);
  }

  /** An object is still there: its space is its own, and nobody else's. */
  retake(place: string, size: number, key: string): void {
    this.give(place);
    this.take(place, size, key);
  }

  give(place: string): void {
    const [endpoint, address] = place.split(' ');
    const ranges = this.taken.get(endpoint) ?? [];
    this.taken.set(
      endpoint,
      ranges.filter(([start]) => start !== Number(address)),
    );
  }
}

const pack = (keys: readonly string[]): Packed => {
  const offsets = new Uint32Array(keys.length + 1);
  for (const [i, key] of keys.entries()) offsets[i + 1] = offsets[i] + Buffer.byteLength(key);
  return { bytes: Buffer.from(keys.join('')), offsets };
};

type Found = Awaited<ReturnType<typeof look>>[number];

const look = (rpc: RpcClient, keys: readonly string[]) =>
  rpc.call(METHODS.BatchGetReplicaList, { keys: pack(keys), tenant: TENANT });

function placeOf(replica: { descriptor: { value: object } }): string {
  const { buffer } = replica.descriptor.value as { buffer: { endpoint: string; address: bigint } };
  return `${buffer.endpoint} ${buffer.address}`;
}

const sizeOf = (replica: { descriptor: { value: object } }) =>
  Number((replica.descriptor.value as { buffer: { size: bigint } }).buffer.size);

class Client {
  readonly id: string;
  readonly segment;
  #rpc!: RpcClient;
  #next = 0;

  constructor(
    readonly number: number,
    readonly truth: Truth,
  ) {
    this.id = `c${number}`.padStart(32, '0');
    this.segment = {
      id: `5e${number}`.padStart(32, '0'),
      name: `host-${number}:1`,
      base: BigInt(number + 1) * 2n ** 40n,
      size: BigInt(LENGTH),
      endpoint: `host-${number}:1`,
      protocol: 'tcp',
      hostId: '',
    };
  }

  async join(port: number): Promise<void> {
    this.#rpc = await RpcClient.connect('127.0.0.1', port, { timeoutMs: 30_000 });
    await this.#rpc.call(METHODS.Ping, { client: this.id });
    await this.#rpc.call(METHODS.ReMountSegment, { segments: [this.segment], client: this.id });
  }

  /** Puts and removes until the master is gone. */
  async work(): Promise<void> {
    for (;;) {
      try {
        await this.#round();
      } catch (error) {
        if ((error as { code?: string }).code === 'ERR_PEER') return;
        throw error;
      }
    }
  }

  async #round(): Promise<void> {
    const { truth } = this;
    const keys = Array.from(
      { length: BATCH },
      () => `client-${this.number}@${(this.#next++).toString(16).padStart(8, '0')}`,
    );
    const sizes = keys.map((_, i) => BigInt(500 + 37 * i));
    const put = { client: this.id, keys: pack(keys), sizes, config: CONFIG, tenant: TENANT };
    const started = await this.#rpc.call(METHODS.BatchPutStart, put);
    const places = started.map((one, i) => {
      if (!one.ok) return undefined;
      const place = placeOf(one.value[0]);
      truth.take(place, Number(sizes[i]), keys[i]);
      return place;
    });
    const going = keys.flatMap((key, i) =>
      places[i] ? [{ key, place: places[i], checksum: BigInt(this.#next + i) }] : [],
    );
    if (going.length === 0) {
      await wait(50);
      return;
    }
    for (const { key } of going) truth.doubtful.add(key);
    const objects = going.map(({ key, checksum }) => ({ key: Buffer.from(key), checksum }));
    const ended = await this.#rpc.call(METHODS.BatchPutEnd, {
      client: this.id,
      objects,
      replicaType: 4,
      tenant: TENANT,
    });
    for (const [i, { key, place, checksum }] of going.entries()) {
      assert.is(ended[i], 0, key);
      truth.doubtful.delete(key);
      truth.kept.set(key, { place, checksum });
    }
    const gone = going.slice(0, 3).map(({ key }) => key);
    // From the moment on at which the master has heard of it, the space is another's.
    for (const key of gone) {
      truth.doubtful.add(key);
      truth.give(truth.kept.get(key)!.place);
    }
    const removed = await this.#rpc.call(METHODS.BatchRemove, { keys: pack(gone), force: false, tenant: TENANT });
    for (const [i, key] of gone.entries()) {
      assert.is(removed[i], 0, key);
      truth.kept.delete(key);
      truth.doubtful.delete(key);
    }
  }

  async read(keys: readonly string[]): Promise<Map<string, Found>> {
    const found = new Map<string, Found>();
    for (let at = 0; at < keys.length; at += 512) {
      const some = keys.slice(at, at + 512);
      for (const [i, one] of (await look(this.#rpc, some)).entries()) found.set(some[i], one);
    }
    return found;
  }

  close(): void {
    this.#rpc.close();
  }
}

async function load(master: Master, truth: Truth, clients: Client[], afterRestart: () => Promise<void>): Promise<void> {
  await master.start();
  await Promise.all(clients.map((client) => client.join(master.port)));
  for (let kill = 0; kill < KILLS; kill++) {
    const before = truth.kept.size;
    const deadline = Date.now() + 60_000;
    const working = Promise.all(clients.map((client) => client.work()));
    while (truth.kept.size < before + 300) {
      assert.ok(Date.now() < deadline, `only ${truth.kept.size - before} objects were put`);
      await Promise.race([wait(20), working]);
    }
    await master.end('SIGKILL');
    await working;
    await master.start();
    await Promise.all(clients.map((client) => client.join(master.port)));
    await afterRestart();
  }
}

test('with a data directory: what was acknowledged is there, where it was', async () => {
  const truth = new Truth();
  const clients = Array.from({ length: CLIENTS }, (_, i) => new Client(i, truth));
  const master = new Master([`--data-dir=${join(folder, 'data')}`]);
  const check = async () => {
    const kept = [...truth.kept].filter(([key]) => !truth.doubtful.has(key));
    const found = await clients[0].read(kept.map(([key]) => key));
    for (const [key, { place, checksum }] of kept) {
      const one = found.get(key);
      assert.ok(one?.ok, `${key} is gone`);
      assert.is(one.value.checksum, checksum, key);
      assert.equal(one.value.replicas.map(placeOf), [place], key);
    }
    // What was under way may be there or not; what is not may be given to others once nobody can be writing it.
    for (const [key, one] of await clients[0].read([...truth.doubtful])) {
      if (!one.ok) truth.kept.delete(key);
      else truth.retake(placeOf(one.value.replicas[0]), sizeOf(one.value.replicas[0]), key);
    }
    truth.doubtful.clear();
    assert.is(
      master.events.some(({ what }) => what === 'data-damaged'),
      false,
    );
  };
  await load(master, truth, clients, check);
  assert.is(master.events.filter(({ what }) => what === 'segment-restored').length, KILLS * CLIENTS);
  for (const client of clients) client.close();
  await master.end('SIGTERM');
  await master.start();
  await Promise.all(clients.map((client) => client.join(master.port)));
  await check();
  for (const client of clients) client.close();
  await master.end('SIGTERM');
});

test('without one: it begins empty, and nobody is given what others may still read', async () => {
  const truth = new Truth();
  const clients = Array.from({ length: CLIENTS }, (_, i) => new Client(i, truth));
  const master = new Master([]);
  let fences = 0;
  await load(master, truth, clients, async () => {
    const found = await clients[0].read([...truth.kept.keys()]);
    for (const [key, one] of found) assert.is(one.ok, false, key);
    truth.kept.clear();
    truth.doubtful.clear();
    truth.taken.clear();
    fences += CLIENTS;
    const { length } = master.events.filter(({ what }) => what === 'segment-fenced');
    assert.is(length, fences + CLIENTS, 'fenced at the start, and after each kill');
    const late = Date.now() + LEASE_MS / 2;
    while (Date.now() < late) await wait(10);
  });
  for (const client of clients) client.close();
  await master.end('SIGTERM');
});

test.run();
