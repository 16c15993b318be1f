/**
 * Our master (`mooncake-ts master`) against the stock one, over the wire: one connection of ours (RpcClient) sends stock
 * keys (135 bytes, one copy each) in batches of 512, and single calls; medians of rounds in turns, and the 99th percentile of
 * the time of a call. Both masters are processes on this machine, and so is the load generator: it costs as much for both.
 *
 * The peer is the wheel mooncake-transfer-engine-non-cuda 0.3.13.post1: `mooncake_master` beside the Python named by
 * MOONCAKE_PYTHON. Without it ours is measured alone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { METHODS, type Packed, RpcClient } from 'mooncake-ts/rpc';
import { replicateConfig } from '../test/support/replicate-config.js';
import { median, missing, report } from './support/report.js';

const BATCH = 512;
const BATCHES = 40;
const ROUNDS = 7;
const SINGLES = 2000;
const IN_FLIGHT = 4;
/** Single calls a second, below what either master can do, and how many of them a round makes. */
const PACE = 10_000;
const PACED = 10_000;
const CLIENT = '1'.padStart(32, '0');
const TENANT = 'default';
const CONFIG = replicateConfig();

const keyOf = (i: number) =>
  Buffer.from(
    `meta-llama/Llama-3.1-8B-Instruct@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@${i.toString(16).padStart(64, '0')}`,
  );

function pack(keys: readonly Uint8Array[]): Packed {
  const offsets = new Uint32Array(keys.length + 1);
  for (const [i, key] of keys.entries()) offsets[i + 1] = offsets[i] + key.length;
  return { bytes: Buffer.concat(keys), offsets };
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

class Contender {
  readonly rates = new Map<string, number[]>();
  readonly times = new Map<string, number[]>();

  private constructor(
    readonly process: ChildProcess,
    readonly client: RpcClient,
  ) {}

  static async start(file: string, args: string[]): Promise<Contender> {
    const port = await freePort();
    const ports = [`--port=${port}`, `--metrics_port=${await freePort()}`, '--rpc_address=127.0.0.1'];
    const child = spawn(file, [...args, ...ports, '--default_kv_lease_ttl=60000'], { stdio: 'ignore' });
    for (let tries = 0; ; tries++) {
      try {
        const client = await RpcClient.connect('127.0.0.1', port);
        await mount(client);
        return new Contender(child, client);
      } catch (error) {
        if (tries > 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Runs calls, so many in flight; keys a second and milliseconds of each. */
  async measure(name: string, calls: number, keys: number, call: (i: number) => Promise<unknown>): Promise<void> {
    const times = this.times.get(name) ?? [];
    this.times.set(name, times);
    let next = 0;
    const start = performance.now();
    await Promise.all(
      Array.from({ length: IN_FLIGHT }, async () => {
        while (next < calls) {
          const began = performance.now();
          await call(next++);
          times.push(performance.now() - began);
        }
      }),
    );
    const rate = (calls * keys * 1000) / (performance.now() - start);
    this.rates.set(name, [...(this.rates.get(name) ?? []), rate]);
  }

  /** Sends calls at a rate, whatever is still under way; milliseconds of each. */
  async pace(name: string, calls: number, perSecond: number, call: (i: number) => Promise<unknown>): Promise<void> {
    const times = this.times.get(name) ?? [];
    this.times.set(name, times);
    const under: Promise<unknown>[] = [];
    const start = performance.now();
    for (let i = 0; i < calls; i++) {
      while (performance.now() < start + (i * 1000) / perSecond) await new Promise((resolve) => setImmediate(resolve));
      const began = performance.now();
      under.push(call(i).then(() => times.push(performance.now() - began)));
    }
    await Promise.all(under);
  }

  close(): void {
    this.client.close();
    this.process.kill('SIGKILL');
  }
}

async function mount(client: RpcClient): Promise<void> {
  const segment = {
    id: '2'.padStart(32, '0'),
    name: 'bench:1',
    base: 0x7000_0000_0000n,
    size: 2n ** 34n,
    endpoint: 'bench:1',
    protocol: 'tcp',
    hostId: '',
  };
  await client.call(METHODS.MountSegment, { segment, client: CLIENT });
}

const batches = Array.from({ length: BATCHES }, (_, b) =>
  Array.from({ length: BATCH }, (_, i) => keyOf(b * BATCH + i)),
);
const packed = batches.map(pack);
const sizes = Array<bigint>(BATCH).fill(4096n);
const objects = batches.map((keys) => keys.map((key) => ({ key, checksum: undefined })));
const fine = (ok: boolean, what: string) => {
  if (!ok) throw new Error(`${what} failed`);
};

async function round(to: Contender): Promise<void> {
  const { client } = to;
  await client.call(METHODS.Ping, { client: CLIENT });
  await to.measure('batch put-start and put-end, 512 keys', BATCHES, BATCH, async (i) => {
    const put = { client: CLIENT, keys: packed[i], sizes, config: CONFIG, tenant: TENANT };
    const started = await client.call(METHODS.BatchPutStart, put);
    fine(started[0].ok, 'BatchPutStart');
    const end = { client: CLIENT, objects: objects[i], replicaType: 4, tenant: TENANT };
    fine((await client.call(METHODS.BatchPutEnd, end))[0] === 0, 'BatchPutEnd');
  });
  await to.measure('batch existence, 512 keys', BATCHES, BATCH, async (i) => {
    fine((await client.call(METHODS.BatchExistKey, { keys: packed[i], tenant: TENANT }))[0] === 1, 'BatchExistKey');
  });
  await to.measure('batch get-replica-list, 512 keys', BATCHES, BATCH, async (i) => {
    fine((await client.call(METHODS.BatchGetReplicaList, { keys: packed[i], tenant: TENANT }))[0].ok, 'get');
  });
  const single = (i: number) => ({ key: batches[i % BATCHES][i % BATCH], tenant: TENANT });
  await to.measure('single existence', SINGLES, 1, (i) => client.call(METHODS.ExistKey, single(i)));
  await to.measure('single get-replica-list', SINGLES, 1, (i) => client.call(METHODS.GetReplicaList, single(i)));
  for (const method of [METHODS.ExistKey, METHODS.GetReplicaList] as const) {
    const name = `single ${method === METHODS.ExistKey ? 'existence' : 'get-replica-list'}, ${PACE} calls/s`;
    await to.pace(name, PACED, PACE, (i) =>
      client.call<{ key: Uint8Array; tenant: string }, unknown>(method, single(i)),
    );
  }
  await client.call(METHODS.RemoveAll, { force: true, tenant: TENANT });
}

/** Of times, the one that this share of them does not exceed. */
const at = (times: number[], share: number) => [...times].sort((a, b) => a - b)[Math.floor(times.length * share)];

const python = process.env.MOONCAKE_PYTHON;
const ours = await Contender.start(process.execPath, ['dist/src/cli/main.js', 'master']);
const stock = python ? await Contender.start(join(dirname(python), 'mooncake_master'), []) : undefined;
try {
  for (let i = -1; i < ROUNDS; i++) {
    for (const one of stock ? [ours, stock] : [ours]) {
      if (i === 0) for (const figures of [one.rates, one.times]) figures.clear();
      // Stock drops a client that is not heard of; its memory comes back by mounting it again.
      await mount(one.client);
      await round(one);
    }
  }
} finally {
  ours.close();
  stock?.close();
}
for (const [name, times] of ours.times) {
  const rates = ours.rates.get(name);
  if (rates) {
    const peer = stock && { peer: 'stock master', baseline: median(stock.rates.get(name)!) };
    const wanted = name.startsWith('single') ? 0.7 : name.startsWith('batch existence') ? 1.5 : 1;
    report({ name, value: median(rates), unit: 'keys/s', ...peer, wanted }, 'higher');
  }
  for (const [percentile, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
  ] as const) {
    const late = stock && { peer: 'stock master', baseline: at(stock.times.get(name)!, share) };
    report({ name: `${name}, ${percentile}`, value: at(times, share), unit: 'ms', ...late }, 'lower');
  }
}
if (!stock) missing('the stock master', 'MOONCAKE_PYTHON names no Python with it');
