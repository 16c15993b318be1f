/**
 * The transfer engine's figures: two processes on this machine, 512 MiB on each side, ours and the peers asked in turns;
 * medians. Ratios above 1 are better than the peer; `wanted` is the least that the project asks for.
 *
 *     NIXL_PYTHON=… MOONCAKE_PYTHON=… npm run bench -- transfer-engine [--json] [--rounds=7]
 *
 * Peers: memcpy of 512 MiB on one core; iperf3 with one and four streams (on PATH, or IPERF3); NIXL 1.5.1 over UCX tcp and
 * over posix, sysv, cma (NIXL_PYTHON: a Python 3.11 with `pip install --no-deps nixl-cu12==1.5.1 numpy`); the stock
 * Transfer Engine (MOONCAKE_PYTHON: a Python with mooncake-transfer-engine-non-cuda 0.3.13.post1, which needs Debian's
 * libibverbs1). Theirs are the drivers in bench/peers. Each row stands twice, verified (every byte compared with the
 * sender's checksum) and not; the peers verify nothing. The store's row is in store.bench.ts.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Driver, type Question } from '../src/bench/transfer/driver.js';
import type { InitiatorOptions, InitiatorReady } from '../src/bench/transfer/initiator.js';
import { iperf3, PEERS, startPeer } from '../src/bench/transfer/peers.js';
import { type Cell, cell, measure, rate } from '../src/bench/transfer/rounds.js';
import { median, missing, report } from './support/report.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const TOTAL = 512 * MiB;
const ROUNDS = Number(process.argv.find((word) => word.startsWith('--rounds='))?.slice(9) ?? 7);
/** No batch is made smaller. */
const LONGEST_MS = 60_000;

const OPS = ['read', 'write'] as const;
const MODES = ['full', 'off'] as const;
type Mode = (typeof MODES)[number];
type Op = (typeof OPS)[number];

const text = (bytes: number) => (bytes >= MiB ? `${bytes / MiB} MiB` : `${bytes / KiB} KiB`);
const reasonOf = (error: unknown) => (error as Error).message;
const cells: Cell[] = [];

function ask(driver: Driver, question: Partial<Question> & Pick<Question, 'block'>): Cell {
  const made = cell(driver, { op: 'read', count: TOTAL / question.block, runs: 1, ...question });
  cells.push(made);
  return made;
}

/** Ours, once verified and once not. */
type Pair = Record<Mode, Cell>;
function pair(driver: Driver, question: Partial<Question> & Pick<Question, 'block'>): Pair {
  const [full, off] = MODES.map((verify) => ask(driver, { ...question, verify }));
  return { full, off };
}

async function startOurs(): Promise<Driver> {
  const root = dirname(createRequire(import.meta.url).resolve('mooncake-ts/package.json'));
  const lanes = ['local', 'shm', 'process_vm', 'tcp'];
  const options: InitiatorOptions = { total: TOTAL, lanes, timeoutMs: 30_000 };
  const args = [join(root, 'dist/src/bench/transfer/initiator.js'), JSON.stringify(options)];
  const driver = await Driver.start({ name: 'mooncake-ts', command: process.execPath, args });
  for (const [lane, { unusable }] of Object.entries((driver.ready as unknown as InitiatorReady).lanes)) {
    if (unusable !== undefined) missing(lane, unusable);
  }
  return driver;
}

/** A figure of ours or of a peer, or nothing where it failed. */
interface Figure {
  peer: string;
  value?: number;
}

/** One row for each mode, and one that compares the modes. */
function rows(name: string, { full, off }: Pair, unit: Unit, baseline: Figure | undefined, wanted: number): void {
  const values = new Map([full, off].map((one, at) => [MODES[at], one.why === undefined ? unit.of(one) : undefined]));
  for (const [mode, value] of values) {
    const row = `${name}, verify ${mode}`;
    if (value === undefined) missing(row, (mode === 'full' ? full : off).why ?? 'nothing was measured');
    else
      report(
        { name: row, value, unit: unit.name, wanted, baseline: baseline?.value, peer: baseline?.peer },
        unit.better,
      );
  }
  const [verified, plain] = MODES.map((mode) => values.get(mode));
  if (verified === undefined || plain === undefined) return;
  const peer = 'the same, verify off';
  report(
    { name: `${name}, full against off`, value: verified, unit: unit.name, wanted: 0.9, baseline: plain, peer },
    unit.better,
  );
}

interface Unit {
  name: string;
  better: 'higher' | 'lower';
  of(one: Cell): number | undefined;
}

const GBS: Unit = { name: 'GB/s', better: 'higher', of: rate };
const MICROSECONDS: Unit = { name: 'us', better: 'lower', of: ({ times }) => median(times) / 1e3 };
const perDescriptor: Unit = {
  name: 'ns',
  better: 'lower',
  of: ({ times, question }) => median(times) / question.count,
};

function best(figures: Figure[]): Figure | undefined {
  const known = figures.filter(({ value }) => value !== undefined);
  return known.sort((a, b) => (b.value as number) - (a.value as number))[0];
}

const drivers: Driver[] = [];
try {
  const ours = await startOurs();
  drivers.push(ours);
  const peers = new Map<string, Driver>();
  for (const spec of PEERS) {
    try {
      const driver = await startPeer(spec, TOTAL);
      drivers.push(driver);
      peers.set(spec.name, driver);
    } catch (error) {
      missing(spec.title, reasonOf(error));
    }
  }
  const theirs = (name: string, question: Partial<Question> & Pick<Question, 'block'>): Cell | undefined => {
    const driver = peers.get(name);
    return driver && ask(driver, question);
  };

  const memcpy = ask(ours, { lane: 'memcpy', block: TOTAL });
  const shm = [64 * KiB, 256 * KiB, MiB].flatMap((block) =>
    OPS.map((op) => ({ op, block, cells: pair(ours, { lane: 'shm', op, block }) })),
  );
  const processVm = [64 * KiB, MiB].flatMap((block) =>
    OPS.map((op) => ({
      op,
      block,
      cells: pair(ours, { lane: 'process_vm', op, block }),
      peer: theirs('nixl-cma', { op, block }),
    })),
  );
  const tcp = new Map<Op, { large: Pair; small: Pair }>(
    OPS.map((op) => [
      op,
      {
        large: pair(ours, { lane: 'tcp', op, block: MiB }),
        small: pair(ours, { lane: 'tcp', op, block: 64 * KiB }),
      },
    ]),
  );
  const tcpPeers = ['nixl-tcp', 'stock'].flatMap((name) =>
    OPS.map((op) => ({ title: `${name} ${op}`, cell: theirs(name, { op, block: MiB }) })),
  );
  const single = { block: 4 * KiB, count: 64, runs: 300, single: true };
  const latency = pair(ours, { lane: 'tcp', ...single });
  const stockLatency = theirs('stock', single);
  const nixlLatency = theirs('nixl-tcp', single);
  const small = pair(ours, { lane: 'local', block: 64, count: 8192, runs: 64 });
  const pages = pair(ours, { lane: 'local', block: 4 * KiB, count: 8192, runs: 4 });
  const streams = new Map<number, number[]>([1, 4].map((number) => [number, []]));
  let iperfWhy: string | undefined;

  await measure(cells, {
    rounds: ROUNDS,
    longestMs: LONGEST_MS,
    between: [...streams].map(([number, rates]) => async () => {
      if (iperfWhy !== undefined) return;
      await iperf3(number).then(
        (found) => rates.push(found),
        (error) => {
          iperfWhy = reasonOf(error);
        },
      );
    }),
    onProgress: (done) => process.stderr.isTTY && process.stderr.write(`\r${Math.round(done * 100)} % `),
  });
  if (process.stderr.isTTY) process.stderr.write('\r      \r');

  const ceiling: Figure = { peer: 'memcpy', value: rate(memcpy) };
  report({ name: 'memcpy of 512 MiB, one core', value: ceiling.value ?? 0, unit: 'GB/s' }, 'higher');
  for (const { op, block, cells } of shm) rows(`shm ${op}, ${text(block)}`, cells, GBS, ceiling, 0.8);

  for (const { op, block, cells, peer } of processVm) {
    const baseline = peer && { peer: `NIXL cma ${op}`, value: rate(peer) };
    if (peer?.why !== undefined) missing(`NIXL cma ${op}, ${text(block)}`, peer.why);
    rows(`process_vm ${op}, ${text(block)}`, cells, GBS, baseline, 1.1);
  }

  if (iperfWhy !== undefined) missing('iperf3', iperfWhy);
  const figures: Figure[] = [...streams].map(([number, rates]) => ({
    peer: `iperf3 -P ${number}`,
    value: rates.length > 0 ? median(rates) : undefined,
  }));
  for (const { title, cell: one } of tcpPeers) {
    if (one?.why !== undefined) missing(`${title}, 1 MiB`, one.why);
    else figures.push({ peer: title, value: one && rate(one) });
  }
  for (const { peer, value } of figures) {
    if (value !== undefined) report({ name: `peer over tcp: ${peer}`, value, unit: 'GB/s' }, 'higher');
  }
  for (const [op, { large }] of tcp) rows(`tcp ${op}, 1 MiB`, large, GBS, best(figures), 1);
  for (const [op, { large, small: pieces }] of tcp) {
    for (const mode of MODES) {
      const name = `tcp ${op}, 64 KiB, 8,192 in a batch, verify ${mode}`;
      const value = rate(pieces[mode]);
      if (value === undefined) missing(name, pieces[mode].why ?? 'nothing was measured');
      else
        report(
          { name, value, unit: 'GB/s', wanted: 0.85, baseline: rate(large[mode]), peer: 'its own 1 MiB' },
          'higher',
        );
    }
  }
  const peerLatency = (title: string, one: Cell | undefined): Figure | undefined => {
    if (one === undefined) return undefined;
    if (one.times.length > 0) return { peer: title, value: MICROSECONDS.of(one) };
    missing(title, one.why ?? 'nothing was measured');
    return undefined;
  };
  const stock = peerLatency('stock engine from Python', stockLatency);
  const nixl = peerLatency('NIXL over UCX tcp from Python', nixlLatency);
  if (nixl?.value !== undefined) report({ name: `4 KiB read: ${nixl.peer}`, value: nixl.value, unit: 'us' }, 'lower');
  rows('tcp read, 4 KiB, one at a time, median', latency, MICROSECONDS, stock, 1 / 0.8);
  rows('local, 8,192 of 4 KiB', pages, GBS, ceiling, 0.8);
  rows('local, 8,192 of 64 bytes, a descriptor', small, perDescriptor, { peer: 'the goal', value: 1000 }, 1);

  // Last: the stock engine moves nothing any more after it.
  const failing = peers.get('stock');
  if (failing) {
    const answer = await failing
      .ask({ op: 'read', block: 64 * KiB, count: 8192, runs: 1 })
      .then(() => 'it moved the batch', reasonOf);
    missing('stock engine, 64 KiB, 8,192 in a batch', answer);
  }
} finally {
  await Promise.all(drivers.map((driver) => driver.close()));
}
