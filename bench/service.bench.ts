/**
 * The node service (docs/service.md) as an engine on the same machine sees it: what a scheduler-side call takes, and how fast
 * blocks are saved and loaded between its memory and a store of the service. The service is a process of its own.
 *
 *   matched, step     microseconds a call, median: from a plain Python process (MOONCAKE_PYTHON, or python3; with msgspec where
 *                     that Python has it), and from Node by ServiceConnector, which waits in the turn
 *   save, load        GB/s (1e9 bytes) from the call that begins it until the engine hears of its end, checksums included;
 *                     an engine that computes nothing meanwhile asks every millisecond, as vLLM's does. The peer is a
 *                     verified copy of the same pieces by a TransferEngine of its own
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KvLayout, type KvRequest, planTransfer, ServiceConnector, sharedMemory, TransferEngine } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const BLOCK = 16;
const BLOCKS = 96;
const LAYERS = 8;
/** Of a block in one layer: an object is 1 MiB. */
const PIECE = 128 * 1024;
/** Rounds that are not counted: a service runs for weeks, not for its first second. */
const WARM_UP = 5;
const ROUNDS = 15;
const CALLS = 2000;
const WANTED_US = 150;
const WANTED_RATIO = 0.7;
const KV_BYTES = LAYERS * BLOCKS * PIECE;

const folder = mkdtempSync(join(tmpdir(), 'mooncake-service-'));
const socket = join(folder, 'service.sock');
const main = fileURLToPath(new URL('./cli/main.js', import.meta.resolve('mooncake-ts')));
const service = spawn(process.execPath, [main, 'service', '--socket', socket, '--store', '3GB', '--populate'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
await once(service.stdout, 'data');
service.stdout.resume();

const requestOf = (requestId: string, seed: number, tokens: number): KvRequest => ({
  requestId,
  numPromptTokens: tokens,
  tokens: Uint32Array.from({ length: tokens }, (_, i) => (i * 7919 + seed) % 50_000),
});
const idle = { cachedRequests: [], newRequests: [], finishedRequestIds: [], preemptedRequestIds: [] };
const ids = Array.from({ length: BLOCKS }, (_, i) => i);
/** What vLLM's engine does between two steps in which no model runs (EngineCore._process_engine_step). */
const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

const layoutIn = (segment: number) =>
  new KvLayout({
    segments: [{ id: segment, length: KV_BYTES }],
    groups: [
      {
        kind: 'mla',
        layers: { from: 0, to: LAYERS },
        blockSize: BLOCK,
        blocks: BLOCKS,
        tensors: {
          latent: {
            dtype: 'bfloat16',
            elements: PIECE / BLOCK / 2,
            strides: { block: PIECE, token: PIECE / BLOCK, layer: BLOCKS * PIECE },
            at: { segment, offset: 0 },
          },
        },
      },
    ],
  });

async function calls(): Promise<void> {
  const python = process.env.MOONCAKE_PYTHON ?? 'python3';
  const program = fileURLToPath(new URL('../../bench/peers/service_client.py', import.meta.url));
  try {
    const lines = execFileSync(python, [program, socket, `${CALLS}`], { encoding: 'utf8' })
      .trim()
      .split('\n');
    for (const [index, op] of ['matched', 'step'].entries()) {
      const value = median(JSON.parse(lines[index]) as number[]);
      report({ name: `${op}, from Python`, value, unit: 'us', baseline: WANTED_US, peer: 'the aim' }, 'lower');
    }
  } catch (error) {
    missing('calls from Python', (error as Error).message.split('\n')[0]);
  }
  const engine = { engineId: 'calls', model: 'm', role: 'both', hash: { blockSize: BLOCK } } as const;
  const scheduler = new ServiceConnector({ socket, connector: { kind: 'store' } }).createScheduler(engine);
  const request = requestOf('r', 1, 4000);
  scheduler.onNewRequest(request);
  const measured = {
    matched: () => scheduler.getNumNewMatchedTokens(request, 0),
    step: () => scheduler.buildConnectorMeta({ ...idle, numScheduledTokens: {} }),
  };
  for (const [op, call] of Object.entries(measured)) {
    const times: number[] = [];
    for (let i = 0; i < CALLS; i++) {
      const begin = performance.now();
      call();
      times.push((performance.now() - begin) * 1000);
    }
    report(
      { name: `${op}, from Node`, value: median(times), unit: 'us', baseline: WANTED_US, peer: 'the aim' },
      'lower',
    );
  }
  await scheduler.shutdown();
}

/** GB/s of saving and of loading BLOCKS blocks, and of the peer's copy, in turns. */
async function bytes(): Promise<void> {
  const engine = { engineId: 'bytes', model: 'm', role: 'both', hash: { blockSize: BLOCK } } as const;
  const connector = new ServiceConnector({ socket, connector: { kind: 'store', integrity: 'strict' } });
  const memory = sharedMemory(KV_BYTES).fill(1);
  const scheduler = connector.createScheduler(engine);
  const worker = connector.createWorker(engine, 0);
  worker.registerKvCaches({ memories: [memory], layout: ([segment]) => layoutIn(segment) });

  const own = await TransferEngine.create({});
  const from = await own.register(sharedMemory(KV_BYTES).fill(1));
  const to = await own.register(sharedMemory(KV_BYTES).fill(1));
  const descriptors = planTransfer(layoutIn(from.id), layoutIn(to.id), {
    sourceBlocks: ids,
    destinationBlocks: ids.toReversed(),
  });

  /** A step with its metadata: when `done`, or right away where nothing has to end. */
  const step = async (output: object, done: (ended: { sending: string[]; receiving: string[] }) => boolean) => {
    const { finishedRequestIds = [] } = output as { finishedRequestIds?: string[] };
    for (let first = true; ; first = false) {
      const metadata = scheduler.buildConnectorMeta({ ...idle, numScheduledTokens: {}, ...(first ? output : {}) });
      worker.bindConnectorMetadata(metadata);
      await worker.handlePreemptions([]);
      worker.startLoadKv();
      if (first && 'newRequests' in output) {
        for (let layer = 0; layer < LAYERS; layer++) {
          await worker.waitForLayerLoad(layer);
          worker.saveKvLayer(layer);
        }
        await worker.waitForSave();
      }
      const ended = worker.getFinished(first ? finishedRequestIds : []);
      if (worker.getBlockIdsWithLoadErrors().length > 0) throw new Error('a load failed');
      worker.clearConnectorMetadata();
      scheduler.updateConnectorOutput({
        finishedSending: ended.sending,
        finishedReceiving: ended.receiving,
        invalidBlockIds: [],
      });
      if (done(ended)) return;
      await pause();
    }
  };

  const rates: Record<'save' | 'load' | 'copy', number[]> = { save: [], load: [], copy: [] };
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const count = (name: keyof typeof rates, begin: number, moved: number) => {
      if (round >= 0) rates[name].push(moved / (performance.now() - begin) / 1e6);
    };
    const saved = requestOf(`save-${round}`, round + 100, BLOCKS * BLOCK);
    const numScheduledTokens = { [saved.requestId]: BLOCKS * BLOCK };
    scheduler.onNewRequest(saved);
    while (scheduler.getNumNewMatchedTokens(saved, 0)[0] === null) await pause();
    scheduler.updateStateAfterAlloc(saved, [ids], 0);
    let begin = performance.now();
    const newRequests = [{ requestId: saved.requestId, blockIds: [ids], numComputedTokens: 0 }];
    await step({ newRequests, numScheduledTokens }, () => true);
    scheduler.requestFinished(saved, [ids]);
    await step({ finishedRequestIds: [saved.requestId] }, ({ sending }) => sending.includes(saved.requestId));
    count('save', begin, BLOCKS * LAYERS * PIECE);

    const loaded = requestOf(`load-${round}`, round + 100, BLOCKS * BLOCK + 1);
    const tokens = loaded.tokens as Uint32Array;
    scheduler.onNewRequest(loaded);
    let offer = scheduler.getNumNewMatchedTokens(loaded, 0)[0];
    while (offer === null) {
      await pause();
      offer = scheduler.getNumNewMatchedTokens(loaded, 0)[0];
    }
    if (offer !== tokens.length - 1) throw new Error(`${offer} tokens were found`);
    begin = performance.now();
    scheduler.updateStateAfterAlloc(loaded, [[...ids, 0]], offer);
    await step({}, ({ receiving }) => receiving.includes(loaded.requestId));
    count('load', begin, BLOCKS * LAYERS * PIECE);
    scheduler.requestFinished(loaded, [ids]);

    begin = performance.now();
    await own.copy(descriptors, { verify: 'full' });
    count('copy', begin, BLOCKS * LAYERS * PIECE);
  }
  const baseline = median(rates.copy);
  for (const name of ['save', 'load'] as const) {
    const value = median(rates[name]);
    report(
      {
        name: `${name}, 96 blocks of 1 MiB`,
        value,
        unit: 'GB/s',
        baseline,
        peer: 'TransferEngine',
        wanted: WANTED_RATIO,
      },
      'higher',
    );
  }
  await worker.shutdown();
  await scheduler.shutdown();
  await own.close();
}

try {
  await calls();
  await bytes();
} finally {
  service.kill();
  await once(service, 'exit');
  rmSync(folder, { recursive: true, force: true });
}
