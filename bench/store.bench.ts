/**
 * The embedded store against the stock Mooncake client with the stock master on this machine: 1 MiB values that all
 * stay in the store, one call after the other from one thread, in turns, medians of GB/s (1e9 bytes).
 *
 * The peer is the wheel mooncake-transfer-engine-non-cuda 0.3.13.post1 (needs Debian's libibverbs1), through the Python
 * named by MOONCAKE_PYTHON; its master is the `mooncake_master` beside that Python. Its client holds the segment itself
 * and copies within its process. MOONCAKE_STORE_CHECKSUM=1 switches its checksums on.
 *
 * `put` writes into memory of the segment that has been used before, as a store that runs has it, and a row of its own
 * says what the first use of memory costs: there the kernel clears every page, unless the store was made with `populate`,
 * which is a row too (the stock client has nothing like it). `get` makes a new value for each call, as
 * the stock `get` does; `getInto` and `get_into` fill memory of the caller. `getView` copies nothing; whether it sums is
 * said in the name.
 *
 * --best reports the best round in place of the median: for a machine that others use meanwhile.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MooncakeStore } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const MiB = 2 ** 20;
const COUNT = 192;
const ROUNDS = 9;
const SEGMENT = 512 * MiB;
/** The objects that gets read stay; the others are put and removed. */
const [KEPT, PASSING] = [0, 1000];

type Operation = 'put' | 'get' | 'getInto' | 'getView' | 'first put' | 'populated put';

interface Contender {
  /** Nanoseconds of COUNT operations. */
  run(operation: string, first: number): Promise<number>;
  close(): Promise<void>;
}

const values = Array.from({ length: 4 }, (_, n) =>
  new Uint8Array(MiB).map((_, i) => Math.imul(i + n * 65537, 2654435761) >>> 11),
);
const into = new Uint8Array(MiB);
const best = process.argv.includes('--best');
const key = (i: number) => `key-${i}`;

const [ON, OFF] = [true, false].map((checksum) => ({ checksum, verify: checksum }));

function ours(options: { checksum: boolean; verify: boolean; populate?: boolean }): Contender {
  const store = new MooncakeStore({ segments: SEGMENT, ...options });
  const check = (fine: boolean) => {
    if (!fine) throw new Error('an operation failed');
  };
  const operations: Record<string, (i: number) => Promise<void>> = {
    put: async (i) => check(await store.put(key(i), values[i & 3])),
    get: async (i) => check((await store.get(key(i)))?.length === MiB),
    getInto: async (i) => check((await store.getInto(key(i), into)) === MiB),
    getView: async (i) => check((await store.getView(key(i)))?.release() === true),
    remove: async (i) => check(await store.remove(key(i))),
  };
  return {
    async run(name, first) {
      const operation = operations[name];
      const begin = process.hrtime.bigint();
      for (let i = first; i < first + COUNT; i++) await operation(i);
      return Number(process.hrtime.bigint() - begin);
    },
    close: () => store.close(),
  };
}

async function stock(python: string, port: number, checksum: boolean): Promise<Contender> {
  const script = fileURLToPath(new URL('../../bench/support/mooncake_store.py', import.meta.url));
  const child: ChildProcess = spawn(python, [script, `${port}`, `${MiB}`, `${SEGMENT}`], {
    env: { ...process.env, MOONCAKE_STORE_CHECKSUM: checksum ? '1' : '0' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`the stock client ended with ${signal ?? code}`)));
  });
  ended.catch(() => {});
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const answer = async () => (await Promise.race([lines.next(), ended])).value as string;
  if ((await answer()) !== 'ready') throw new Error('the stock client is not ready');
  return {
    async run(name, first) {
      child.stdin?.write(`${name} ${first} ${COUNT}\n`);
      return Number(await answer());
    },
    async close() {
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      child.stdin?.end();
      const patience = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(patience);
    },
  };
}

/** The same work under the names of both. */
const NAMES: Record<Operation, string> = {
  'first put': 'put',
  'populated put': 'put',
  put: 'put',
  get: 'get',
  getInto: 'get_into',
  getView: 'get_buffer',
};

const contenders = new Map<string, Contender>();
const figures = new Map<string, number[]>();

async function measure(who: string, operation: string, row: string, first: number): Promise<void> {
  const contender = contenders.get(who);
  if (contender === undefined) return;
  const taken = await contender.run(operation, first);
  const name = `${who} ${row}`;
  figures.set(name, [...(figures.get(name) ?? []), (COUNT * MiB) / taken]);
}

const gbs = (who: string, row: string): number | undefined => {
  const found = figures.get(`${who} ${row}`);
  return found && (best ? Math.max(...found) : median(found));
};

/** Brings the compilers of this process to their best code, on a store of its own. */
async function warmUp(contender: Contender): Promise<void> {
  for (const operation of ['put', 'get', 'getInto', 'getView']) await contender.run(operation, KEPT);
  await contender.close();
}

try {
  await warmUp(ours(ON));
  contenders.set('ours on', ours(ON));
  contenders.set('ours off', ours(OFF));
  const python = process.env.MOONCAKE_PYTHON;
  let why = 'set MOONCAKE_PYTHON to a Python that has mooncake-transfer-engine-non-cuda 0.3.13.post1';
  if (python !== undefined) {
    try {
      contenders.set('stock on', await stock(python, 50961, true));
      contenders.set('stock off', await stock(python, 50963, false));
    } catch (error) {
      why = `${python}: ${(error as Error).message}`;
    }
  }

  const isOurs = (who: string) => who.startsWith('ours');
  for (const who of contenders.keys()) await measure(who, 'put', 'first put', KEPT);
  for (const [who, integrity] of [
    ['ours on', ON],
    ['ours off', OFF],
  ] as const) {
    const store = ours({ ...integrity, populate: true });
    figures.set(`${who} populated put`, [(COUNT * MiB) / (await store.run('put', KEPT))]);
    await store.close();
  }
  for (let round = -2; round < ROUNDS; round++) {
    if (round === 0)
      for (const name of figures.keys()) if (!/^.* (first|populated) put$/.test(name)) figures.delete(name);
    for (const [who, contender] of contenders) {
      await measure(who, 'put', 'put', PASSING);
      await contender.run('remove', PASSING);
    }
    for (const operation of ['get', 'getInto', 'getView'] as const) {
      for (const who of contenders.keys()) {
        await measure(who, isOurs(who) ? operation : NAMES[operation], operation, KEPT);
      }
    }
  }

  const compare = (row: Operation, mine: 'on' | 'off', theirs: 'on' | 'off', label = row as string, peerRow = row) => {
    const value = gbs(`ours ${mine}`, row);
    if (value === undefined) return;
    const baseline = gbs(`stock ${theirs}`, peerRow);
    const name = `${label}, checksums ${mine}`;
    const peer = `stock ${NAMES[peerRow]}, checksums ${theirs}`;
    report({ name, value, unit: 'GB/s', baseline, peer: baseline === undefined ? undefined : peer }, 'higher');
    if (baseline === undefined) missing(`${name}, against ${peer}`, why);
  };
  for (const [mine, theirs] of [
    ['on', 'on'],
    ['on', 'off'],
    ['off', 'off'],
  ] as const) {
    compare('put', mine, theirs);
    compare('first put', mine, theirs, 'put into memory never used');
    compare('populated put', mine, theirs, 'put into a new store, populated', 'first put');
    compare('get', mine, theirs);
    compare('getInto', mine, theirs);
    const zeroCopy = mine === 'on' ? 'getView, no copy, verified' : 'getView, no copy, not verified';
    compare('getView', mine, theirs, zeroCopy);
  }
} finally {
  for (const contender of contenders.values()) await contender.close();
}
