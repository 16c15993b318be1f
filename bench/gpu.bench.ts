/**
 * Memory of a GPU to and from host memory, and within the GPU, in blocks of 64 KiB at random on both sides: submitted from
 * JavaScript, timed there until the promise resolves, bytes compared afterwards. The GPU's memory belongs to a process of
 * its own and is reached by its IPC handle, as an inference engine's is. Sizes are those of 128 to 32,768 tokens of 147,456
 * bytes (36 layers, 8 KV heads of 128, bf16, K and V).
 *
 * Needs an NVIDIA GPU; GPU_PYTHON names a Python with torch, which measures the ceilings (one copy of pinned memory, of the
 * whole size) and the baseline of one call for each block in the same run.
 *
 * GPU_TOKENS names sizes ("128,2048"), GPU_VERIFY=full has every byte summed on the GPU, MOONCAKE_GPU_WAY insists on `kernel` or
 * `engines`, GPU_ROWS=1 copies 2 of 4 heads out of blocks (512 of each 1,024 bytes), and GPU_BUSY=1 has another process
 * multiply matrices on the GPU meanwhile (test/gpu/owner.py, or GPU_OWNER): how much slower that one gets is a row of its own.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Descriptors, TransferEngine } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const BLOCK = 65_536;
const TOKEN = 147_456;
const ALL_TOKENS = [128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];
const TOKENS = process.env.GPU_TOKENS?.split(',').map(Number) ?? ALL_TOKENS;
const VERIFY = process.env.GPU_VERIFY === 'full' ? 'full' : 'off';
const ROWS = process.env.GPU_ROWS === '1';
const SETTING = [process.env.MOONCAKE_GPU_WAY, VERIFY === 'full' && 'verified', ROWS && 'heads split'].filter(Boolean);
const ROUNDS = 9;
/** Copies that are not counted: memory is pinned, and each way of copying is tried. */
const WARMING = 6;
const MOST = Math.max(...TOKENS) * TOKEN;
/** Bytes that are compared in the end. */
const CHECKED = 8 << 20;

/** The owner: allocates, says how it is reached, and fills or sums what it has when asked. */
async function own(): Promise<void> {
  const engine = await TransferEngine.create();
  const memory = await engine.allocateDevice('cuda:0', 2 * MOST);
  const { handle, offset } = engine.exportDevice(memory.id);
  process.stdout.write(`${JSON.stringify({ handle: Buffer.from(handle).toString('hex'), offset })}\n`);
  for await (const _ of createInterface({ input: process.stdin }));
  await engine.close();
}

function shuffled(count: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Memory of MOST bytes, as segments of equal length: a Buffer has at most 4 GiB in Node 20. */
interface Side {
  segments: readonly number[];
  /** Where it begins in its first segment. */
  offset: number;
}

const HALF = MOST / 2;
/** Bytes of 2 heads of a token, half of those that a block's rank has. */
const HEADS = 512;
const GPU_ROWS = { rows: { count: BLOCK / HEADS / 2, sourceStride: 2 * HEADS, destinationStride: HEADS } };

/** As many blocks at random of `source` to blocks at random of `destination`, both in the first `room` blocks. */
function scatter(source: Side, destination: Side, blocks: number, room = MOST / BLOCK): Descriptors {
  const [from, to] = [shuffled(room, 1), shuffled(room, 2)];
  const bytes = new Uint8Array(32 * (blocks + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(blocks), true);
  const place = (side: Side, block: number) => {
    const at = block * BLOCK;
    const split = side.segments.length > 1 && at >= HALF;
    return { segment: side.segments[split ? 1 : 0], at: BigInt(side.offset + (split ? at - HALF : at)) };
  };
  for (let i = 0; i < blocks; i++) {
    const at = 32 * (i + 1);
    const [here, there] = [place(source, from[i]), place(destination, to[i])];
    view.setUint32(at, here.segment, true);
    view.setUint32(at + 4, there.segment, true);
    view.setBigUint64(at + 8, here.at, true);
    view.setBigUint64(at + 16, there.at, true);
    view.setBigUint64(at + 24, BigInt(ROWS ? HEADS : BLOCK), true);
  }
  return new Descriptors(bytes);
}

const PEER = `
import json, sys, time, torch
def best(f, n=7):
    t = []
    for _ in range(n):
        torch.cuda.synchronize(); s = time.perf_counter(); f(); torch.cuda.synchronize(); t.append(time.perf_counter() - s)
    return sorted(t)[len(t) // 2]
for size in json.loads(sys.argv[1]):
    a = torch.empty(size, dtype=torch.uint8, device="cuda"); b = torch.empty_like(a)
    h = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    row = {"d2h": best(lambda: h.copy_(a, non_blocking=True)), "h2d": best(lambda: a.copy_(h, non_blocking=True)), "d2d": best(lambda: b.copy_(a))}
    n = min(size // 65536, 4096)
    A, B, H = (x[:n * 65536].view(n, 65536) for x in (a, b, h))
    p = torch.randperm(n).tolist(); q = torch.randperm(n).tolist()
    def each(x, y):
        for i, j in zip(p, q): x[i].copy_(y[j], non_blocking=True)
    for name, x, y in (("d2h", H, A), ("h2d", A, H), ("d2d", B, A)):
        row["each " + name] = best(lambda: each(x, y), 3) / n * (size // 65536)
    print(json.dumps({"size": size, **row}), flush=True)
    del a, b, h, A, B, H
`;

interface Ceiling {
  size: number;
  [name: string]: number;
}

function ceilings(): Ceiling[] {
  const python = process.env.GPU_PYTHON;
  if (!python) return [];
  const ran = spawnSync(python, ['-c', PEER, JSON.stringify(TOKENS.map((tokens) => tokens * TOKEN))], {
    encoding: 'utf8',
  });
  if (ran.status !== 0) process.stderr.write(ran.stderr);
  return ran.stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/** A process that computes on the GPU: `rate` is what it did in each quarter of a second, as it says it. */
async function busyProcess() {
  const script = process.env.GPU_OWNER ?? fileURLToPath(new URL('../../test/gpu/owner.py', import.meta.url));
  const child = spawn(process.env.GPU_PYTHON ?? 'python3', [script, 'busy'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const rates: number[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => rates.push(JSON.parse(line).rate));
  const during = async (work: () => Promise<void>): Promise<number> => {
    rates.length = 0;
    // Those at either end were not wholly during it.
    while (rates.length < 8) await work();
    return median(rates.slice(1));
  };
  const wait = () => new Promise<void>((resolve) => setTimeout(resolve, 50));
  await during(wait);
  return { alone: await during(wait), during, end: () => child.kill() };
}

async function main(): Promise<void> {
  const engine = await TransferEngine.create();
  const cuda = engine.statistics().transports.find(({ name }) => name === 'cuda');
  if (!cuda?.usable) {
    missing('a GPU', cuda?.detail ?? 'the accelerator is not there');
    return engine.close();
  }
  const known = ceilings();
  const busy = process.env.GPU_BUSY === '1' ? await busyProcess() : undefined;
  const owner: ChildProcess = spawn(process.execPath, [fileURLToPath(import.meta.url), '--own'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: owner.stdout! })[Symbol.asyncIterator]();
  const { handle, offset } = JSON.parse((await lines.next()).value);
  const gpu = await engine.registerDevice({
    device: 'cuda:0',
    handle: Buffer.from(handle, 'hex'),
    offset,
    length: 2 * MOST,
  });
  const halves = [await engine.allocate(HALF), await engine.allocate(HALF)];
  for (const { memory } of halves)
    new Uint32Array(memory.buffer, memory.byteOffset, HALF / 4).forEach((_, i, all) => {
      all[i] = i;
    });
  const host: Side = { segments: halves.map(({ id }) => id), offset: 0 };
  const [first, second]: Side[] = [0, MOST].map((offset) => ({ segments: [gpu.id], offset }));
  for (const tokens of TOKENS) {
    const size = tokens * TOKEN;
    const blocks = size / BLOCK;
    const ways = {
      h2d: scatter(host, first, blocks),
      d2d: scatter(first, second, blocks),
      d2h: scatter(second, host, blocks),
    };
    const moved = ROWS ? size / 2 : size;
    const options = { verify: VERIFY, gpu: ROWS ? GPU_ROWS : undefined } as const;
    for (const [way, descriptors] of Object.entries(ways)) {
      const times: number[] = [];
      const copy = async () => {
        const began = performance.now();
        const { verifiedBytes } = await engine.copy(descriptors, options);
        times.push(performance.now() - began);
        if (VERIFY === 'full' && verifiedBytes !== moved) throw new Error(`${verifiedBytes} of ${moved} were verified`);
      };
      for (let round = 0; round < WARMING; round++) await copy();
      times.length = 0;
      const slowed = await busy?.during(copy);
      for (let round = 0; round < (busy ? 0 : ROUNDS); round++) await copy();
      const rate = moved / median(times) / 1e6;
      const name = [`${way}, ${tokens} tokens`, ...SETTING].join(', ');
      if (busy && slowed) {
        report({ name: `${name}, the GPU busy: slowdown`, value: busy.alone / slowed, unit: 'times' }, 'lower');
      }
      const ceiling = known.find((each) => each.size === size);
      const one = ceiling && size / ceiling[way] / 1e9;
      const peer = 'one copy by torch';
      report({ name: busy ? `${name}, the GPU busy` : name, value: rate, unit: 'GB/s', baseline: one, peer }, 'higher');
      if (!ceiling) continue;
      const each = size / ceiling[`each ${way}`] / 1e9;
      report({ name: `${way}, ${tokens} tokens, a call for each block`, value: each, unit: 'GB/s' }, 'higher');
    }
  }
  if (!ROWS) await compare(engine, halves, host, first, second);
  busy?.end();
  await engine.unregister(gpu.id);
  owner.stdin!.end();
  await engine.close();
}

/** What came round is what was sent, block by block. */
async function compare(
  engine: TransferEngine,
  halves: readonly { memory: Uint8Array }[],
  host: Side,
  first: Side,
  second: Side,
): Promise<void> {
  const [memory] = halves.map((half) => Buffer.from(half.memory.buffer, half.memory.byteOffset, CHECKED));
  const blocks = CHECKED / BLOCK;
  for (let word = 0; word < CHECKED; word += 4) memory.writeUInt32LE(word, word);
  const before = Buffer.from(memory);
  await engine.copy(scatter(host, first, blocks, blocks), { verify: 'off' });
  await engine.copy(scatter(first, second, blocks, blocks), { verify: 'off' });
  memory.fill(0);
  await engine.copy(scatter(second, host, blocks, blocks), { verify: 'off' });
  const [from, to] = [shuffled(blocks, 1), shuffled(blocks, 2)];
  const step = new Uint32Array(blocks);
  for (let i = 0; i < blocks; i++) step[from[i]] = to[i];
  for (let block = 0; block < blocks; block++) {
    const at = step[step[step[block]]] * BLOCK;
    if (before.compare(memory, at, at + BLOCK, block * BLOCK, (block + 1) * BLOCK) !== 0) {
      throw new Error(`block ${block} arrived wrong`);
    }
  }
}

await (process.argv.includes('--own') ? own() : main());
