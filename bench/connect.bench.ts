/**
 * Our client of a Mooncake cluster against the stock client, both on the stock master: values of 1 MiB and batches, in memory of
 * the client's own process (`own`) and of another process on this machine (`node`). Every contender has a stock master
 * to itself; they take turns, rows are medians of GB/s (1e9 bytes) after rounds in which V8 compiles what it runs often. Checksums: ours puts and verifies CRC-64 unless a row
 * says otherwise; the stock client's are off, as they are by default.
 *
 *   own         the client lends the only segment: bytes are copied within its process
 *   node        a process of ours lends it to our client, a stock process to the stock client
 *   stock node  our client, a stock process lends the segment: Mooncake's TCP stream
 *
 * The peer is the wheel mooncake-transfer-engine-non-cuda 0.3.13.post1 (needs Debian's libibverbs1) through the Python named
 * by MOONCAKE_PYTHON, its `mooncake_master` beside that Python. --best reports the best round in place of the median.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MooncakeStore } from 'mooncake-ts';
import { RpcClient } from 'mooncake-ts/rpc';
import { median, missing, report } from './support/report.js';

const MiB = 2 ** 20;
const COUNT = 32;
const ROUNDS = 9;
/** Rounds that are not counted: below some thousand calls a store runs mostly code that is not compiled yet. */
const WARM_UP = 40;
const SEGMENT = 256 * MiB;
/** The objects that gets read stay; the others are put and removed. */
const [KEPT, PASSING] = [0, 1000];
const OPERATIONS = ['put', 'putFrom', 'get', 'getInto', 'batchPutFrom', 'batchGetInto'] as const;
type Operation = (typeof OPERATIONS)[number];

const python = process.env.MOONCAKE_PYTHON;
const best = process.argv.includes('--best');
const running: ChildProcess[] = [];

interface Contender {
  /** Nanoseconds of COUNT operations, or of one batch of COUNT. */
  run(operation: Operation | 'remove', first: number): Promise<number>;
  close(): Promise<void>;
}

/** Two ports side by side that nobody has now. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

function start(command: string, parameters: string[]): ChildProcess {
  const child = spawn(command, parameters, { stdio: ['pipe', 'pipe', 'ignore'] });
  running.push(child);
  return child;
}

async function stockMaster(): Promise<number> {
  const [port, metrics] = [await freePort(), await freePort()];
  const command = join(dirname(python!), 'mooncake_master');
  const child = start(command, [`--rpc_port=${port}`, `--metrics_port=${metrics}`, '--rpc_address=127.0.0.1']);
  child.stdout?.resume();
  for (let tries = 0; ; tries++) {
    try {
      (await RpcClient.connect('127.0.0.1', port)).close();
      return port;
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** Lines of a child; rejects when it ends. */
function answers(child: ChildProcess): () => Promise<string> {
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`a peer ended with ${signal ?? code}`)));
  });
  ended.catch(() => {});
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return async () => (await Promise.race([lines.next(), ended])).value as string;
}

async function stock(port: number, segment: number): Promise<Contender> {
  const script = fileURLToPath(new URL('../../bench/support/mooncake_peer.py', import.meta.url));
  const child = start(python!, [script, `${port}`, `${MiB}`, `${segment}`]);
  const answer = answers(child);
  if ((await answer()) !== 'ready') throw new Error('the stock client is not ready');
  return {
    async run(name, first) {
      child.stdin?.write(`${name} ${first} ${COUNT}\n`);
      return Number(await answer());
    },
    async close() {
      child.stdin?.end();
    },
  };
}

/** A process of ours that lends a segment. */
async function ourNode(port: number): Promise<void> {
  const child = start(process.execPath, [fileURLToPath(import.meta.url), 'node', `${port}`]);
  if ((await answers(child)()) !== 'ready') throw new Error('our node is not ready');
}

async function ours(port: number, segment: number, checksum: boolean): Promise<Contender> {
  const options = { master: `127.0.0.1:${port}`, checksum, verify: checksum };
  const store = await MooncakeStore.connect({ ...options, segments: segment === 0 ? undefined : segment });
  const area = new Uint8Array(COUNT * MiB).map((_, i) => Math.imul(i, 2654435761) >>> 11);
  const value = area.slice(0, MiB);
  const registered = store.transfer.register(area);
  const ranges = Array.from({ length: COUNT }, (_, i) => ({ segment: registered, offset: i * MiB, length: MiB }));
  const keys = (first: number) => Array.from({ length: COUNT }, (_, i) => `key-${first + i}`);
  const check = (fine: boolean) => {
    if (!fine) throw new Error('an operation failed');
  };
  const single: Record<string, (key: string) => Promise<void>> = {
    put: async (key) => check(await store.put(key, value)),
    putFrom: async (key) => check(await store.putFrom(key, ranges[0])),
    get: async (key) => check((await store.get(key))?.length === MiB),
    getInto: async (key) => check((await store.getInto(key, ranges[0])) === MiB),
    remove: async (key) => check(await store.remove(key, { force: true })),
  };
  const batch: Record<string, (all: string[]) => Promise<void>> = {
    batchPutFrom: async (all) => check((await store.batchPutFrom(all, ranges)).every((status) => status === 0)),
    batchGetInto: async (all) => check((await store.batchGetInto(all, ranges)).every((size) => size === MiB)),
  };
  return {
    async run(name, first) {
      const all = keys(first);
      const begin = process.hrtime.bigint();
      if (batch[name]) await batch[name](all);
      else for (const key of all) await single[name](key);
      return Number(process.hrtime.bigint() - begin);
    },
    close: () => store.close(),
  };
}

async function node(port: number): Promise<void> {
  const store = await MooncakeStore.connect({ master: `127.0.0.1:${port}`, segments: SEGMENT });
  console.log('ready');
  process.stdin.resume().once('end', () => void store.close().then(() => process.exit(0)));
}

async function bench(): Promise<void> {
  if (python === undefined) {
    missing('connect', 'set MOONCAKE_PYTHON to a Python that has mooncake-transfer-engine-non-cuda 0.3.13.post1');
    return;
  }
  const contenders = new Map<string, Contender>();
  for (const [name, checksum] of [
    ['ours', true],
    ['ours, no checksums', false],
  ] as const) {
    contenders.set(`${name}, own`, await ours(await stockMaster(), SEGMENT, checksum));
    const cluster = await stockMaster();
    await ourNode(cluster);
    contenders.set(`${name}, node`, await ours(cluster, 0, checksum));
  }
  const mixed = await stockMaster();
  await stock(mixed, SEGMENT);
  contenders.set('ours, stock node', await ours(mixed, 0, true));
  contenders.set('stock, own', await stock(await stockMaster(), SEGMENT));
  const cluster = await stockMaster();
  await stock(cluster, SEGMENT);
  contenders.set('stock, node', await stock(cluster, 0));

  const figures = new Map<string, number[]>();
  for (const contender of contenders.values()) await contender.run('put', KEPT);
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const operation of OPERATIONS) {
      const isPut = /put/i.test(operation);
      for (const [who, contender] of contenders) {
        const taken = await contender.run(operation, isPut ? PASSING : KEPT);
        if (isPut) await contender.run('remove', PASSING);
        const name = `${operation} ${who}`;
        if (round >= 0) figures.set(name, [...(figures.get(name) ?? []), (COUNT * MiB) / taken]);
      }
    }
  }
  const gbs = (operation: Operation, who: string) => {
    const found = figures.get(`${operation} ${who}`)!;
    return best ? Math.max(...found) : median(found);
  };
  for (const operation of OPERATIONS) {
    const label = operation.startsWith('batch') ? `${operation}, ${COUNT} of 1 MiB` : `${operation}, 1 MiB`;
    for (const who of contenders.keys()) {
      if (who.startsWith('stock')) continue;
      const peer = who.endsWith('own') ? 'stock, own' : 'stock, node';
      const [value, baseline] = [gbs(operation, who), gbs(operation, peer)];
      report({ name: `${label}, ${who}`, value, unit: 'GB/s', baseline, peer, wanted: 2 }, 'higher');
    }
  }
  for (const contender of contenders.values()) await contender.close();
}

if (process.argv[2] === 'node') await node(Number(process.argv[3]));
else {
  try {
    await bench();
  } finally {
    for (const child of running) child.kill('SIGKILL');
  }
}
