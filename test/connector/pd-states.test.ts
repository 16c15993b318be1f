/**
 * Hand-overs of a cache with states (Mamba and other linear attention) beside full attention, driven by hand. A block of the
 * state group holds the state behind its last token; the decode computes on from the last one that is before the prompt's
 * last token.
 */
import { type GroupBlocks, KvLayout, LocalTransfer, MooncakeConnector, type MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';

type Mode = 'pull' | 'push' | 'layers';

const BLOCKS = 12;
/** Tokens of a block of full attention, and bytes of its cells. */
const BLOCK = 4;
const CELL = 8;
/** Bytes of a state. */
const STATE = 24;
const HEADS = 2;
const FULL_BLOCK = BLOCK * HEADS * CELL;
const FULL_BYTES = BLOCKS * FULL_BLOCK;
const OUTPUT = { cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [], numScheduledTokens: {} };

function open(engineId: string, { mode = 'pull' as Mode, stateTokens = 8, size = 1 } = {}) {
  const engine = {
    engineId,
    model: 'states',
    role: 'both',
    hash: { blockSize: BLOCK },
    tensorParallelSize: size,
  } as const;
  const transfer = new LocalTransfer();
  const failures: MooncakeError[] = [];
  const connector = new MooncakeConnector({ transfer, mode, onLoadError: (error) => failures.push(error) });
  const scheduler = connector.createScheduler(engine);
  const memories = Array.from({ length: size }, () => new Uint8Array(FULL_BYTES + BLOCKS * STATE).fill(0xee));
  const layout = (rank: number, segment: number) =>
    new KvLayout({
      segments: [{ id: segment, length: memories[rank].length }],
      tensorParallel: { rank, size },
      groups: [
        {
          kind: 'full',
          heads: HEADS,
          layers: [0],
          blockSize: BLOCK,
          blocks: BLOCKS,
          tensors: {
            k: {
              dtype: 'uint8',
              elements: CELL,
              strides: { block: FULL_BLOCK, token: HEADS * CELL, head: CELL },
              at: { segment, offset: 0 },
            },
          },
        },
        {
          kind: 'state',
          layers: [1],
          blockSize: stateTokens,
          blocks: BLOCKS,
          tensors: {
            s: { dtype: 'uint8', elements: STATE, strides: { block: STATE }, at: { segment, offset: FULL_BYTES } },
          },
        },
      ],
    });
  const workers = memories.map((memory, rank) => {
    const worker = connector.createWorker(engine, rank);
    worker.registerKvCaches({ memories: [memory], layout: ([segment]) => layout(rank, segment) });
    return worker;
  });
  scheduler.setHandshakeMetadata(workers.map((worker) => worker.getHandshakeMetadata()));
  const invalid: number[] = [];
  const step = (newRequests: { requestId: string; blockIds: GroupBlocks; numComputedTokens: number }[] = []) => {
    const metadata = structuredClone(scheduler.buildConnectorMeta({ ...OUTPUT, newRequests }));
    const done = workers.map((worker) => {
      worker.bindConnectorMetadata(metadata);
      worker.startLoadKv();
      const { sending, receiving } = worker.getFinished([]);
      invalid.push(...worker.getBlockIdsWithLoadErrors());
      return { sending, receiving };
    });
    return {
      sent: done.some(({ sending }) => sending.length > 0),
      received: done.some(({ receiving }) => receiving.length > 0),
    };
  };
  const [memory] = memories;
  return {
    scheduler,
    step,
    failures,
    invalid,
    full: (block: number) => memory.subarray(block * FULL_BLOCK, (block + 1) * FULL_BLOCK),
    state: (block: number) => memory.subarray(FULL_BYTES + block * STATE, FULL_BYTES + (block + 1) * STATE),
    close: async () => {
      await Promise.all([scheduler.shutdown(), ...workers.map((worker) => worker.shutdown())]);
      await transfer.close();
    },
  };
}

const PROMPT = tokensOf(12, 21);
const SOURCE: GroupBlocks = [
  [1, 2, 3, 4, 5, 6],
  [0, 7, 8],
];
const DESTINATION: GroupBlocks = [
  [11, 10, 9, 8, 7, 6],
  [2, 3, 4],
];

/** Computes the prompt at one engine and asks for it at another: the tokens that it is offered, and both engines. */
async function handOver(prefill: ReturnType<typeof open>, decode: ReturnType<typeof open>, source = SOURCE) {
  for (const [group, blocks] of source.entries()) {
    for (const block of blocks) prefill[group === 0 ? 'full' : 'state'](block).fill(100 * group + block);
  }
  const tokens = [...PROMPT];
  const kvTransferParams = { do_remote_decode: true, transfer_id: 'states' };
  const prefilled = { requestId: 'p', tokens, numPromptTokens: PROMPT.length, kvTransferParams };
  prefill.scheduler.onNewRequest(prefilled);
  prefill.step([{ requestId: 'p', blockIds: source, numComputedTokens: 0 }]);
  tokens.push(1);
  const [, params] = prefill.scheduler.requestFinished(prefilled, source);
  const decoded = { requestId: 'd', tokens: PROMPT, numPromptTokens: PROMPT.length, kvTransferParams: params! };
  decode.scheduler.onNewRequest(decoded);
  const [offered] = decode.scheduler.getNumNewMatchedTokens(decoded, 0);
  decode.scheduler.updateStateAfterAlloc(decoded, DESTINATION, offered!);
  let [sent, received] = [false, offered === 0];
  for (const end = Date.now() + 10_000; !sent || !received; ) {
    assert.ok(Date.now() < end, `sent: ${sent}, received: ${received}`);
    sent = prefill.step().sent || sent;
    received = decode.step().received || received;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return offered;
}

for (const mode of ['pull', 'push', 'layers'] as const) {
  test(`${mode}: the state behind token 16 comes with the tokens before it, and nothing else`, async () => {
    const [prefill, decode] = [open('prefill'), open('decode', { mode })];
    assert.is(await handOver(prefill, decode), 16);
    assert.equal([decode.failures, decode.invalid], [[], []]);
    for (let i = 0; i < 4; i++)
      assert.ok(
        decode.full(DESTINATION[0][i]).every((byte) => byte === SOURCE[0][i]),
        `block ${i}`,
      );
    assert.ok(decode.state(3).every((byte) => byte === 107));
    for (const block of [7, 6, 0]) assert.ok(decode.full(block).every((byte) => byte === 0xee));
    for (const block of [0, 2, 4, 5]) assert.ok(decode.state(block).every((byte) => byte === 0xee));
    await Promise.all([prefill.close(), decode.close()]);
  });

  test(`${mode}: a prefill that has not kept that state is not taken`, async () => {
    const [prefill, decode] = [open('prefill'), open('decode', { mode })];
    await handOver(prefill, decode, [SOURCE[0], [0, 0, 8]]);
    assert.equal(
      decode.failures.map(({ code, argument }) => [code, argument]),
      [['ERR_INVALID_ARGUMENT', 'sourceBlocks[1]']],
    );
    assert.equal(decode.invalid, [11, 10, 9, 8, 2, 3]);
    await Promise.all([prefill.close(), decode.close()]);
  });
}

test('where one block holds the only state, behind whatever was computed last, nothing is offered', async () => {
  const options = { stateTokens: 4096 };
  const [prefill, decode] = [open('prefill', options), open('decode', options)];
  assert.is(await handOver(prefill, decode), 0);
  assert.is(decode.scheduler.stats().handoversUnwanted, 1);
  await Promise.all([prefill.close(), decode.close()]);
});

test('a state that is cut in other pieces is refused', async () => {
  const [prefill, decode] = [open('prefill', { size: 2 }), open('decode')];
  await handOver(prefill, decode);
  assert.equal([decode.failures[0].code, decode.failures[0].argument], ['ERR_LAYOUT_MISMATCH', 'sources']);
  await Promise.all([prefill.close(), decode.close()]);
});

test.run();
