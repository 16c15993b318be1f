/**
 * Our contender (driver.ts): moves blocks between its memory and the target's over the lane that a question names. argv:
 * InitiatorOptions as JSON. The first line says which lanes work, and why the others do not.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { MemorySegment, TransferEngineApi } from '../../transfer/engine/api.js';
import { TransferEngine } from '../../transfer/engine/engine.js';
import type { Answer, Question } from './driver.js';
import { LANES, type LaneSpec, type OpenLane, openLane, type TargetNames } from './lanes.js';
import { batch, parts } from './places.js';
import { MARK, MARK_BYTES } from './target.js';

export interface InitiatorOptions {
  /** Bytes of memory on each side. */
  total: number;
  lanes: string[];
  /** A target on another machine. Default: one of our own. */
  target?: TargetNames;
  /** Of each batch. */
  timeoutMs: number;
}

export interface InitiatorReady {
  ready: string;
  /** The lanes that were asked for, and why one does not work. */
  lanes: Record<string, { unusable?: string }>;
}

type Move = () => Promise<{ bytes: number; verifiedBytes: number }>;

const options = JSON.parse(process.argv[2]) as InitiatorOptions;
const open = new Map<string, OpenLane>();
const say = (line: unknown) => void process.stdout.write(`${JSON.stringify(line)}\n`);

const base = await TransferEngine.create();
const length = options.total + MARK_BYTES;
const ours = await base.allocate(length, { name: 'ours' });
const other = await base.allocate(length, { name: 'other' });
ours.memory.fill(1);
other.memory.fill(MARK);

const { names, child } = await findTarget();
const lanes: InitiatorReady['lanes'] = {};
for (const spec of LANES.filter(({ name }) => options.lanes.includes(name))) {
  lanes[spec.name] = await prepare(spec).then(
    () => ({}),
    (error: Error) => ({ unusable: error.message }),
  );
}
say({ ready: 'mooncake-ts', lanes } satisfies InitiatorReady);

for await (const line of createInterface({ input: process.stdin })) {
  say(await answer(JSON.parse(line)).catch((error: Error) => ({ error: error.message })));
}
await Promise.all([...open.values()].map((lane) => lane.close()));
await base.close();
child?.stdin?.end();
process.exit();

async function findTarget(): Promise<{ names: TargetNames; child?: ChildProcess }> {
  if (options.target) return { names: options.target };
  const script = fileURLToPath(new URL('./target-process.js', import.meta.url));
  const settings = JSON.stringify({ total: options.total, host: '127.0.0.1', port: 0 });
  const child = spawn(process.execPath, [script, settings], { stdio: ['pipe', 'pipe', 'inherit'] });
  // Without it there is nothing to measure.
  child.once('exit', (code, by) => {
    process.stderr.write(`the target's process ended (${by ?? code})\n`);
    process.exit(1);
  });
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  process.once('exit', () => child.kill());
  return { names: JSON.parse(line), child };
}

async function prepare(spec: LaneSpec): Promise<void> {
  if (spec.native && !base.accelerated) throw new Error(base.why ?? 'the accelerator was not loaded');
  if (spec.kind === 'memory') return;
  const lane = await openLane(spec, names, TransferEngine.create, (engine) => register(engine, spec));
  try {
    if (lane.theirs.length !== length) {
      throw new Error(`the target moves ${lane.theirs.length - MARK_BYTES} bytes: give that as --total`);
    }
    ours.memory.fill(0, options.total);
    const mark = batch(lane.theirs.id, lane.ours, [options.total], MARK_BYTES);
    await lane.engine.read(lane.peer, mark, { timeoutMs: 5000 });
    const arrived = ours.memory.subarray(options.total);
    if (arrived.some((byte) => byte !== MARK)) throw new Error('a read brought other bytes than those of the target');
  } catch (error) {
    await lane.close();
    throw error;
  }
  open.set(spec.name, lane);
}

/** All lanes move the same memory of ours. */
async function register(engine: TransferEngineApi, spec: LaneSpec): Promise<number> {
  const memory = spec.native ? { address: ours.address, length } : ours.memory;
  const segment: MemorySegment = await engine.register(memory, { name: 'ours' });
  return segment.id;
}

async function answer({ lane, op, block, count, runs, single, verify }: Question): Promise<Answer> {
  const batches = parts(options.total, block, count);
  const places = single ? batches[0].slice(0, 64).map((place) => [place]) : batches;
  const moves = lane === 'memcpy' ? [copyAll] : places.map((place) => move(lane ?? '', op, place, block, verify));
  const nanoseconds: number[] = [];
  let [moved, verified] = [0, 0];
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    const { bytes, verifiedBytes } = await moves[run % moves.length]();
    nanoseconds.push((performance.now() - start) * 1e6);
    moved += bytes;
    verified += verifiedBytes;
  }
  return { nanoseconds, verifiedShare: moved > 0 ? verified / moved : 0 };
}

function move(
  name: string,
  op: Question['op'],
  places: readonly number[],
  block: number,
  verify: Question['verify'] = 'full',
): Move {
  const limits = { verify, timeoutMs: options.timeoutMs };
  if (name === 'local') {
    const descriptors = batch(other.id, ours.id, places, block);
    return () => base.copy(descriptors, limits);
  }
  const lane = open.get(name);
  if (lane === undefined) throw new Error(`the lane ${name} is not open`);
  const { engine, peer, ours: mine, theirs } = lane;
  if (op === 'read') {
    const descriptors = batch(theirs.id, mine, places, block);
    return () => engine.read(peer, descriptors, limits);
  }
  const descriptors = batch(mine, theirs.id, places, block);
  return () => engine.write(peer, descriptors, limits);
}

/** What one core can do: the C library's copy of everything. */
async function copyAll() {
  ours.memory.set(other.memory);
  return { bytes: length, verifiedBytes: 0 };
}
