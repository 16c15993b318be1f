/**
 * A master's tables at scale: resident memory, pauses, log, snapshot and restart with many objects under stock keys (135
 * bytes), one copy and a checksum each, state kept in a data directory. The service is called in batches of 512 as the
 * RPC server calls it, each batch acknowledged when it is durable; a pause is the longest time between two turns of the event
 * loop, the batch that is being worked on included. Filling and restart are processes of their own.
 *
 * MASTER_SCALE_OBJECTS: how many (1,000,000). MASTER_SCALE_DIR: where the data directory is made (the system's folder for
 * temporary files). Ten million need 3 GB of memory and 4 GB of disk.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Keys, type SegmentInfo } from 'mooncake-ts';
import { Persistence } from 'mooncake-ts/master';
import { report } from './support/report.js';

const BATCH = 512;
const OBJECTS = Math.round(Number(process.env.MASTER_SCALE_OBJECTS ?? 1_000_000) / BATCH) * BATCH;
/** Batches under way at once, as clients that do not wait for each other have them. */
const IN_FLIGHT = 4;
const SIZE = 2 ** 20;
const CLIENTS = 8;
const PREFIX = 'meta-llama/Llama-3.1-8B-Instruct@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@';

const id = (n: number) => n.toString(16).padStart(32, '0');
const clients = Array.from({ length: CLIENTS }, (_, i) => id(0xc0 + i));
/** Room for all objects below the watermark. */
const segments: SegmentInfo[] = clients.map((_, i) => ({
  id: id(0x50 + i),
  name: `host-${i}:1`,
  base: 2 ** 46,
  length: Math.ceil(OBJECTS / CLIENTS / 0.89) * SIZE,
  endpoint: `host-${i}:1`,
  protocol: 'tcp',
  hostId: '',
}));

const digits = Buffer.from('0123456789abcdef');

/** Keys from `first` on: the prefix and 64 digits that look like a hash. */
function keysFrom(first: number, count: number): Keys {
  const each = PREFIX.length + 64;
  const bytes = Buffer.alloc(count * each);
  const offsets = new Uint32Array(count + 1);
  for (let i = 0; i < count; i++) {
    let at = i * each;
    at += bytes.write(PREFIX, at, 'latin1');
    let state = Math.imul(first + i + 1, 0x9e3779b1) >>> 0;
    for (let word = 0; word < 8; word++) {
      state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + first + i + word) >>> 0;
      for (let digit = 28; digit >= 0; digit -= 4) bytes[at++] = digits[(state >>> digit) & 15];
    }
    offsets[i + 1] = at;
  }
  return new Keys(bytes, offsets);
}

interface Pause {
  /** The longest time between two turns of the event loop, ms. */
  wall: number;
  /** The most processor time that the event loop's thread took between two turns, ms; undefined where nobody says it. */
  busy: number | undefined;
}

/**
 * Pauses since they were asked for last. On a machine that others use too, a turn also lasts while its thread waits for a
 * processor; so the processor time of the thread is measured beside the clock's (Linux, as exact as the scheduler's tick).
 */
class Pauses {
  #wall = 0;
  #busy = 0;
  #last = performance.now();
  #lastBusy = 0;
  #going = true;
  readonly #schedule: number | undefined = openSchedule();
  readonly #text = Buffer.alloc(64);

  constructor() {
    this.#lastBusy = this.#processor();
    const turn = () => {
      const [now, busy] = [performance.now(), this.#processor()];
      this.#wall = Math.max(this.#wall, now - this.#last);
      this.#busy = Math.max(this.#busy, busy - this.#lastBusy);
      [this.#last, this.#lastBusy] = [now, busy];
      if (this.#going) setImmediate(turn);
    };
    setImmediate(turn);
  }

  take(): Pause {
    const pause = { wall: this.#wall, busy: this.#schedule === undefined ? undefined : this.#busy };
    [this.#wall, this.#busy] = [0, 0];
    return pause;
  }

  end(): void {
    this.#going = false;
    if (this.#schedule !== undefined) closeSync(this.#schedule);
  }

  /** Processor time of this thread so far, ms. */
  #processor(): number {
    if (this.#schedule === undefined) return 0;
    const length = readSync(this.#schedule, this.#text, 0, this.#text.length, 0);
    return Number.parseInt(this.#text.toString('latin1', 0, length), 10) / 1e6;
  }
}

function openSchedule(): number | undefined {
  try {
    return openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  } catch {
    return undefined;
  }
}

const sizes = new Float64Array(BATCH).fill(SIZE);
const checksums = Array.from({ length: BATCH }, (_, i) => (BigInt(i) * 0x9e3779b97f4a7c15n) & 0xffff_ffff_ffff_ffffn);

async function putAll({ service, settled }: Opened, from: number, count: number): Promise<number> {
  const started = performance.now();
  let next = from;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      while (next < from + count) {
        const first = next;
        next += BATCH;
        const keys = keysFrom(first, BATCH);
        const client = clients[Math.floor(first / BATCH) % CLIENTS];
        const outcomes = service.putStart(client, keys, sizes, {});
        await settled();
        if (!outcomes.every(({ ok }) => ok)) throw new Error(JSON.stringify(outcomes.find(({ ok }) => !ok)));
        service.putEnd(client, keys, checksums);
        await settled();
        await new Promise((resolve) => setImmediate(resolve));
      }
    }),
  );
  return (count * 1000) / (performance.now() - started);
}

interface Opened {
  service: Persistence['service'];
  settled(): Promise<void> | undefined;
}

interface Figures {
  values: Record<string, number>;
  pauses: Record<string, Pause>;
}

async function open(dataDir: string): Promise<Persistence> {
  return Persistence.open({ dataDir, snapshotIntervalMs: 2 ** 30 }, { leaseTtlMs: 1000, maxSegments: 64 });
}

async function fill(dataDir: string): Promise<Figures> {
  const persistence = await open(dataDir);
  const { service } = persistence;
  for (const [i, segment] of segments.entries()) service.mountSegment(segment, clients[i]);
  const opened = { service, settled: () => persistence.settled() };
  await putAll(opened, 2 ** 31 - 64 * BATCH, 64 * BATCH);
  await service.removeAll(true);
  const before = process.memoryUsage().rss;
  const pauses = new Pauses();
  await new Promise((resolve) => setImmediate(resolve));
  pauses.take();
  const putRate = await putAll(opened, 0, OBJECTS);
  const putPause = pauses.take();
  const { logBytes } = persistence.figures();
  const { objects } = service.stats();
  const residentBytes = process.memoryUsage().rss - before;
  const rounds = Math.max(1, Math.round(OBJECTS / 50 / BATCH));
  let at = OBJECTS;
  pauses.take();
  const evictRate = await putAll(opened, at, 4 * rounds * BATCH);
  at += 4 * rounds * BATCH;
  const evictPause = pauses.take();
  const evicted = service.stats().evictedObjects;
  const snapshotStart = performance.now();
  let going = true;
  const snapshot = persistence.snapshot().finally(() => {
    going = false;
  });
  while (going) {
    await putAll(opened, at, BATCH * IN_FLIGHT);
    at += BATCH * IN_FLIGHT;
  }
  await snapshot;
  const snapshotMs = performance.now() - snapshotStart;
  const snapshotPause = pauses.take();
  const peakBytes = process.memoryUsage().rss - before;
  pauses.end();
  const { snapshotBytes } = persistence.figures();
  const left = service.stats().objects;
  await persistence.settled();
  // As a kill leaves it: the parent ends this process.
  return {
    values: {
      objects,
      left,
      evicted,
      putRate,
      evictRate,
      snapshotMs,
      residentBytes,
      peakBytes,
      logBytes,
      snapshotBytes,
    },
    pauses: { puts: putPause, 'puts that evict': evictPause, 'puts and a snapshot': snapshotPause },
  };
}

async function restart(dataDir: string): Promise<Figures> {
  const before = process.memoryUsage().rss;
  const started = performance.now();
  const persistence = await open(dataDir);
  const replayMs = performance.now() - started;
  const { service } = persistence;
  for (const [i, segment] of segments.entries()) {
    if (service.mountSegment(segment, clients[i]) !== 0) throw new Error(`${segment.name} was refused`);
  }
  const restartMs = performance.now() - started;
  const { objects } = service.stats();
  const residentBytes = process.memoryUsage().rss - before;
  return { values: { objects, replayMs, restartMs, residentBytes }, pauses: {} };
}

function inProcess(phase: string, dataDir: string): Promise<Figures> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), phase, dataDir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part) => {
      text += part;
      if (!text.endsWith('\n')) return;
      child.kill('SIGKILL');
    });
    child.once('close', () => {
      try {
        resolve(JSON.parse(text));
      } catch {
        reject(new Error(`${phase} ended without figures`));
      }
    });
  });
}

const [phase, dataDir] = process.argv.slice(2);
if (phase === 'fill' || phase === 'restart') {
  const figures = phase === 'fill' ? await fill(dataDir) : await restart(dataDir);
  process.stdout.write(`${JSON.stringify(figures)}\n`);
} else {
  const folder = mkdtempSync(join(process.env.MASTER_SCALE_DIR ?? tmpdir(), 'master-scale-'));
  try {
    const path = join(folder, 'data');
    const { values: filled, pauses } = await inProcess('fill', path);
    const { values: restarted } = await inProcess('restart', path);
    if (restarted.objects !== filled.left) throw new Error(`${restarted.objects} of ${filled.left} objects came back`);
    const of = `${filled.objects} objects: `;
    const say = (name: string, value: number, unit: string) => report({ name: of + name, value, unit }, 'lower');
    say('resident memory', filled.residentBytes / filled.objects, 'B/object');
    say('resident memory, most, with eviction and snapshot', filled.peakBytes / filled.objects, 'B/object');
    say('resident memory after a restart', restarted.residentBytes / restarted.objects, 'B/object');
    say('log of a put', filled.logBytes / filled.objects, 'B/object');
    say('snapshot', filled.snapshotBytes / filled.left, 'B/object');
    for (const [what, { wall, busy }] of Object.entries(pauses)) {
      say(`longest pause, ${what}`, wall, 'ms');
      if (busy !== undefined) say(`longest pause, ${what}, processor time`, busy, 'ms');
    }
    say('snapshot under load', filled.snapshotMs / 1000, 's');
    say('restart until objects are offered', restarted.restartMs / 1000, 's');
    report({ name: `${of}durable puts`, value: filled.putRate, unit: 'keys/s' }, 'higher');
    report({ name: `${of}durable puts that evict`, value: filled.evictRate, unit: 'keys/s' }, 'higher');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
