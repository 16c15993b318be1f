/**
 * Hand-overs of caches with several groups, driven by hand: full attention, a sliding window of larger blocks, latent
 * vectors that every rank holds. Sizes of tensor parallelism differ; each byte is known by group, head and token.
 */
import {
  type GroupBlocks,
  KvLayout,
  type KvTransferParams,
  LocalTransfer,
  MooncakeConnector,
  type MooncakeError,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';

const BLOCKS = 16;
const HEADS = 4;
const CELL = 8;
const WINDOW = 9;
const SIZES = [4, 8, 4];
const OUTPUT = { cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [], numScheduledTokens: {} };

/** One rank's memory, and where in it the cell of a token and head lies. */
class Rank {
  readonly memory: Uint8Array;
  readonly rank: number;
  readonly size: number;
  readonly #starts: number[] = [];

  constructor(rank: number, size: number) {
    [this.rank, this.size] = [rank, size];
    let length = 0;
    for (const [group, blockSize] of SIZES.entries()) {
      this.#starts.push(length);
      length += BLOCKS * blockSize * this.heads(group).length * CELL;
    }
    this.memory = new Uint8Array(length).fill(0xee);
  }

  heads(group: number): number[] {
    const local = group === 2 ? 1 : HEADS / this.size;
    return Array.from({ length: local }, (_, i) => (group === 2 ? 0 : this.rank * local + i));
  }

  layout = ([segment]: readonly number[]): KvLayout => {
    const tensors = (group: number) => {
      const local = this.heads(group).length;
      const strides = { block: SIZES[group] * local * CELL, token: local * CELL, head: CELL };
      const { head: _, ...latent } = strides;
      const at = { segment, offset: this.#starts[group] };
      return { k: { dtype: 'uint8' as const, elements: CELL, strides: group === 2 ? latent : strides, at } };
    };
    const common = (group: number) => ({
      layers: [group],
      blockSize: SIZES[group],
      blocks: BLOCKS,
      tensors: tensors(group),
    });
    return new KvLayout({
      segments: [{ id: segment, length: this.memory.length }],
      tensorParallel: { rank: this.rank, size: this.size },
      groups: [
        { kind: 'full', heads: HEADS, ...common(0) },
        { kind: 'sliding', window: WINDOW, heads: HEADS, ...common(1) },
        { kind: 'mla', ...common(2) },
      ],
    });
  };

  /** The cells of a token, with what they should hold. */
  cells(group: number, blocks: readonly number[], token: number): [cell: Uint8Array, value: number][] {
    const size = SIZES[group];
    const heads = this.heads(group);
    return heads.map((head, index) => {
      const slot = (blocks[Math.floor(token / size)] * size + (token % size)) * heads.length + index;
      const at = this.#starts[group] + slot * CELL;
      return [this.memory.subarray(at, at + CELL), (group * 89 + head * 31 + token * 7) % 200];
    });
  }
}

type Mode = 'pull' | 'push' | 'layers';

/** An engine of some ranks, each with a transfer of its own. */
function open(engineId: string, size: number, mode: Mode) {
  const engine = { engineId, model: 'hybrid', role: 'both', hash: { blockSize: 4 }, tensorParallelSize: size } as const;
  const transfers = Array.from({ length: size }, () => new LocalTransfer());
  const failures: MooncakeError[] = [];
  const connector = new MooncakeConnector({
    transfer: (rank) => transfers[rank],
    mode,
    onLoadError: (error) => failures.push(error),
  });
  const scheduler = connector.createScheduler(engine);
  const ranks = transfers.map((_, rank) => new Rank(rank, size));
  const workers = ranks.map(({ memory, layout }, rank) => {
    const worker = connector.createWorker(engine, rank);
    worker.registerKvCaches({ memories: [memory], layout });
    return worker;
  });
  scheduler.setHandshakeMetadata(workers.map((worker) => worker.getHandshakeMetadata()));
  let newRequests: { requestId: string; blockIds: GroupBlocks; numComputedTokens: number }[] = [];
  const invalid: number[] = [];
  const counts = { sending: new Map<string, number>(), receiving: new Map<string, number>() };
  const step = (scheduled = 0) => {
    const numScheduledTokens = Object.fromEntries(newRequests.map(({ requestId }) => [requestId, scheduled]));
    const metadata = structuredClone(scheduler.buildConnectorMeta({ ...OUTPUT, newRequests, numScheduledTokens }));
    newRequests = [];
    const done = { sending: [] as string[], receiving: [] as string[] };
    for (const worker of workers) {
      worker.bindConnectorMetadata(metadata);
      worker.startLoadKv();
      if (scheduled > 0) for (const layer of SIZES.keys()) worker.saveKvLayer(layer);
      const finished = worker.getFinished([]);
      for (const what of ['sending', 'receiving'] as const) {
        for (const id of finished[what]) {
          const count = (counts[what].get(id) ?? 0) + 1;
          counts[what].set(id, count);
          if (count === size) done[what].push(id);
        }
      }
      invalid.push(...worker.getBlockIdsWithLoadErrors());
      worker.clearConnectorMetadata();
    }
    const { sending: finishedSending, receiving: finishedReceiving } = done;
    scheduler.updateConnectorOutput({ finishedSending, finishedReceiving, invalidBlockIds: invalid });
    return done;
  };
  return {
    scheduler,
    ranks,
    failures,
    invalid,
    step,
    started: (requestId: string, blockIds: GroupBlocks) => {
      newRequests = [{ requestId, blockIds, numComputedTokens: 0 }];
    },
    count: (name: string) => workers.reduce((sum, worker) => sum + worker.stats()[name], 0),
    address: transfers[0].address,
    close: async () => {
      await Promise.all([scheduler.shutdown(), ...workers.map((worker) => worker.shutdown())]);
      await Promise.all(transfers.map((transfer) => transfer.close()));
    },
  };
}

const PROMPT = tokensOf(6, 24);

/** Hands the prompt over between engines of so many ranks; `from` tokens are there already. */
async function handOver(
  [prefillSize, decodeSize]: readonly number[],
  mode: Mode,
  source: GroupBlocks,
  destination: GroupBlocks,
  from = 0,
) {
  const [prefill, decode] = [open('prefill', prefillSize, mode), open('decode', decodeSize, mode)];
  const isHole = (group: number, id: number) => group === 1 && id === 0;
  for (const rank of prefill.ranks) {
    for (const [group, blocks] of source.entries()) {
      for (let token = 0; token < PROMPT.length; token++) {
        if (isHole(group, blocks[Math.floor(token / SIZES[group])])) continue;
        for (const [cell, value] of rank.cells(group, blocks, token)) cell.fill(value);
      }
    }
  }
  const tokens = [...PROMPT];
  const kvTransferParams = { do_remote_decode: true, transfer_id: 'groups' };
  const prefilled = { requestId: 'p', tokens, numPromptTokens: PROMPT.length, kvTransferParams };
  prefill.scheduler.onNewRequest(prefilled);
  const take = (params: KvTransferParams) => {
    const decoded = { requestId: 'd', tokens: PROMPT, numPromptTokens: PROMPT.length, kvTransferParams: params };
    decode.scheduler.onNewRequest(decoded);
    assert.equal(decode.scheduler.getNumNewMatchedTokens(decoded, from), [PROMPT.length - from, true]);
    decode.scheduler.updateStateAfterAlloc(decoded, destination, PROMPT.length - from);
  };
  const until = async (done: () => boolean) => {
    for (const end = Date.now() + 10_000; !done(); ) {
      assert.ok(Date.now() < end, 'nothing happens');
      decode.step();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  if (mode === 'layers') {
    prefill.step();
    take({
      do_remote_prefill: true,
      transfer_id: 'groups',
      remote_engine_id: 'prefill',
      remote_bootstrap_addr: prefill.address,
    });
    await until(
      () => prefill.count('decodesWaiting') >= Math.max(prefillSize > decodeSize ? prefillSize : 0, decodeSize),
    );
    // The window's first block is still there in the first chunk, but a window does not go early.
    prefill.started('p', [source[0].slice(0, 4), [5, source[1][1]], source[2].slice(0, 4)]);
    prefill.step(16);
    const early = Math.max(0, 16 - from) * (HEADS + decodeSize) * CELL;
    await until(() => prefill.count('bytesPushedEarly') >= early);
    assert.is(prefill.count('bytesPushedEarly'), early);
  } else {
    prefill.started('p', source);
    prefill.step(PROMPT.length);
  }
  tokens.push(1);
  const [delayFree, params] = prefill.scheduler.requestFinished(prefilled, source);
  assert.is(delayFree, true);
  if (mode !== 'layers') take(params!);
  let [sent, received] = [false, false];
  for (const end = Date.now() + 10_000; !sent || !received; ) {
    assert.ok(Date.now() < end, `sent: ${sent}, received: ${received}`);
    sent = prefill.step().sending.includes('p') || sent;
    received = decode.step().receiving.includes('d') || received;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const wrong: string[] = [];
  for (const [index, rank] of decode.ranks.entries()) {
    for (const [group, blocks] of destination.entries()) {
      // The last token is computed again: what it sees of a window, and nothing before.
      const first = group === 1 ? Math.max(from, PROMPT.length - WINDOW) : from;
      for (let token = first; token < PROMPT.length; token++) {
        for (const [cell, value] of rank.cells(group, blocks, token)) {
          if (cell.some((byte) => byte !== value)) wrong.push(`rank ${index} group ${group} token ${token}`);
        }
      }
      // Nothing else was touched.
      const untouched = Array.from({ length: BLOCKS }, (_, id) => id).filter((id) => !blocks.includes(id));
      if (group === 1) untouched.push(0);
      for (const id of untouched) {
        for (const [cell] of rank.cells(group, [id], 0)) assert.ok(cell.every((byte) => byte === 0xee));
      }
    }
  }
  const result = { wrong, failures: decode.failures, invalid: decode.invalid, loaded: decode.count('blocksLoaded') };
  await Promise.all([prefill.close(), decode.close()]);
  return result;
}

const SOURCE: GroupBlocks = [
  [1, 2, 3, 4, 5, 6],
  [0, 2, 3],
  [6, 5, 4, 3, 2, 1],
];
const DESTINATION: GroupBlocks = [
  [15, 14, 13, 12, 11, 10],
  [0, 7, 9],
  [1, 3, 5, 7, 9, 11],
];

for (const mode of ['pull', 'push', 'layers'] as const) {
  for (const sizes of [
    [1, 1],
    [2, 1],
    [1, 2],
    [4, 2],
    [2, 4],
  ]) {
    test(`${mode}, ${sizes.join(' ranks to ')}: every group arrives, and what stands for no block stays untouched`, async () => {
      const whole = await handOver(sizes, mode, SOURCE, DESTINATION);
      assert.equal([whole.wrong, whole.failures], [[], []]);
      assert.is(whole.loaded, sizes[1] * (6 + 2 + 6));
      // What the decode has already is neither moved nor counted.
      const rest = await handOver(sizes, mode, SOURCE, DESTINATION, 16);
      assert.equal([rest.wrong, rest.failures], [[], []]);
      assert.is(rest.loaded, sizes[1] * (2 + 1 + 2));
    });
  }

  test(`${mode}: a prefill that went on and freed what the prompt's last token sees is not taken`, async () => {
    // Token 15 is the last of the window's second block: token 24 does not see it, token 23 does.
    const source = [SOURCE[0], [0, 0, 3], SOURCE[2]];
    const { failures, invalid } = await handOver([1, 1], mode, source, DESTINATION);
    assert.equal(
      failures.map(({ code, argument }) => [code, argument]),
      [['ERR_INVALID_ARGUMENT', 'sourceBlocks[1]']],
    );
    assert.equal(invalid, [...DESTINATION[0], 7, 9, ...DESTINATION[2]]);
    // Where the decode has it, it is not asked for.
    const { wrong, failures: none } = await handOver([1, 1], mode, source, DESTINATION, 16);
    assert.equal([wrong, none], [[], []]);
  });
}

test.run();
