/** Messages that lie: a prefill that answers what it should not, and a decode that asks for it. No load takes them. */
import {
  type KvTransferParams,
  LocalTransfer,
  MooncakeConnector,
  MooncakeError,
  type RequestContext,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tokensOf } from './harness.js';
import { closeSide, counters, decodeParams, drive, idle, type Side, side, transferId } from './pd-pair.js';

const SERVICE = 'mooncake.handover.v1';
const TOKENS = tokensOf(8, 18);
type Message = Record<string, unknown>;

/** A transfer whose engine answers some operations otherwise. */
class LyingTransfer extends LocalTransfer {
  readonly lies = new Map<string, (truth: Message) => unknown>();

  override serve(service: string, handler: (message: unknown, context: RequestContext) => unknown): () => void {
    return super.serve(service, async (value, context) => {
      const message = value as Message;
      const lie = this.lies.get(message.op as string);
      const before = lie && message.op === 'push' ? {} : await handler(value, context);
      return lie ? lie(structuredClone(before) as Message) : before;
    });
  }
}

function clean({ engine }: Side): void {
  assert.equal(engine.corruptions, []);
  assert.is(engine.freeBlocks, engine.blocks);
}

async function prefillOf(prefill: Side): Promise<KvTransferParams> {
  const kvTransferParams = { do_remote_decode: true, transfer_id: transferId() };
  const request = prefill.engine.add({ tokens: TOKENS, kvTransferParams });
  await drive([prefill], () => request.state === 'finished');
  return request.params!;
}

const ofFirst = (change: Message) => (ranks: unknown) => {
  const [first, ...others] = ranks as Message[];
  return [{ ...first, ...change }, ...others];
};
const lies: [
  what: string,
  mode: 'pull' | 'push' | 'layers',
  op: string,
  lie: (truth: Message) => unknown,
  argument: string,
][] = [
  ['no roster', 'pull', 'roster', () => null, 'roster'],
  ['an empty roster', 'pull', 'roster', () => [], 'roster'],
  ['the roster of another engine', 'pull', 'roster', ofFirst({ engine: 'other' }), 'engine'],
  ['a roster that lacks ranks', 'pull', 'roster', ofFirst({ size: 2 }), 'roster[0]'],
  ['a rank without a layout', 'pull', 'roster', ofFirst({ layout: null }), 'rank.layout'],
  ['a layout of nothing', 'pull', 'roster', ofFirst({ layout: { segments: [], groups: [] } }), 'groups'],
  ['segments that are not there', 'pull', 'roster', ofFirst({ segments: [] }), 'layout.segments'],
  ['a generation that is not there', 'pull', 'roster', ofFirst({ generation: 'x' }), 'generation'],
  ['no grant', 'pull', 'take', () => null, 'grant'],
  ['a lease that is no number', 'pull', 'take', (grant) => ({ ...grant, lease: 'mine' }), 'grant.lease'],
  ['a lease that it never gave', 'pull', 'take', (grant) => ({ ...grant, lease: 99 }), 'transfer'],
  ['blocks that are no lists', 'pull', 'take', (grant) => ({ ...grant, blocks: 'all' }), 'blocks'],
  ['too few blocks', 'pull', 'take', (grant) => ({ ...grant, blocks: [[1, 2]] }), 'tokens.to'],
  ['no group', 'pull', 'take', (grant) => ({ ...grant, blocks: [] }), 'tokens.to'],
  [
    'blocks outside of its cache',
    'pull',
    'take',
    (grant) => ({ ...grant, blocks: [[0, 1, 2, 3, 64]] }),
    'sourceBlocks[4]',
  ],
  ['holes in full attention', 'pull', 'take', (grant) => ({ ...grant, blocks: [[0, 1, -1, 3, 4]] }), 'sourceBlocks[2]'],
  ['that it has written, though nothing', 'push', 'push', () => ({ bytes: 0, verifiedBytes: 0 }), 'report.bytes'],
  // 2 layers of 18 tokens of 4 heads, keys and values of 8 bytes each.
  ['that it has written less than all', 'push', 'push', () => ({ bytes: 2303, verifiedBytes: 2303 }), 'report.bytes'],
  ['that it has written unverified', 'push', 'push', () => ({ bytes: 2304, verifiedBytes: 8 }), 'report.verifiedBytes'],
  [
    'that it has written more early than at all',
    'layers',
    'push',
    () => ({ bytes: 2304, verifiedBytes: 2304, earlyBytes: 2305 }),
    'report.earlyBytes',
  ],
  ['no report', 'push', 'push', () => null, 'report'],
];
for (const [what, mode, op, lie, argument] of lies) {
  test(`a prefill that answers ${op} with ${what} is not believed`, async () => {
    const transfer = new LyingTransfer();
    // Whose roster makes no sense cannot be told anything.
    const abortTimeoutMs = op === 'roster' ? 20 : 60_000;
    const prefill = side({ transfer: () => transfer, connector: { abortTimeoutMs } });
    const decode = side({ connector: { mode, verify: 'full' } });
    const { remote_generation: _, ...params } = await prefillOf(prefill);
    transfer.lies.set(op, lie);
    const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: params });
    await drive([prefill, decode], idle([prefill, decode]));
    assert.is(decoded.externalTokens, 0);
    assert.equal(
      decode.failures.map((error) => error.argument),
      [argument],
    );
    for (const one of [prefill, decode]) clean(one);
    await Promise.all([prefill, decode].map(closeSide));
  });
}

test('a decode that asks for what it should not gets an answer of that name, and takes nothing from others', async () => {
  const [prefill, decode] = [side(), side()];
  const params = await prefillOf(prefill);
  // Its workers hear of the offer.
  await prefill.engine.step();
  const stranger = new LocalTransfer();
  const peer = await stranger.connect(prefill.transfers[0].address);
  const to = { engine: params.remote_engine_id, rank: 0, generation: params.remote_generation };
  const { transfer_id: transfer } = params;
  const by = { transfer, engine: 'stranger', request: 'r' };
  const prompt = { tokens: TOKENS.length, digest: '00' };
  const reader = { engine: 'stranger', rank: 0, generation: 'x' };
  const take = { ...to, op: 'take', by, prompt, reader, readers: [0], timeoutMs: 1000 };
  for (const [message, code] of [
    [null, 'ERR_INVALID_ARGUMENT'],
    [{ ...to, op: 'seize' }, 'ERR_NOT_SUPPORTED'],
    [{ ...to, op: 'take' }, 'ERR_INVALID_ARGUMENT'],
    [{ ...to, rank: 1, op: 'take' }, 'ERR_NOT_FOUND'],
    [{ ...to, generation: 'x', op: 'take' }, 'ERR_NOT_FOUND'],
    [{ ...take, readers: [1] }, 'ERR_INVALID_ARGUMENT'],
    [{ ...take, readers: [-1, 0] }, 'ERR_INVALID_ARGUMENT'],
    [{ ...take, timeoutMs: 2 ** 31 }, 'ERR_INVALID_ARGUMENT'],
    [take, 'ERR_LAYOUT_MISMATCH'],
    [{ ...take, op: 'push', tokens: { from: 5, to: 4 }, blocks: [[0]] }, 'ERR_INVALID_ARGUMENT'],
    [{ ...take, op: 'push', tokens: { from: 0, to: 99 }, blocks: [[0]] }, 'ERR_INVALID_ARGUMENT'],
    [{ ...take, op: 'push', tokens: { from: 0, to: 4 }, blocks: [[0.5]] }, 'ERR_INVALID_ARGUMENT'],
    [{ ...take, op: 'push', tokens: { from: 0, to: 4 }, blocks: [[0]], verify: 'some' }, 'ERR_INVALID_ARGUMENT'],
    [{ ...to, op: 'done', transfer, lease: 1, reader: 0 }, 'ERR_NOT_FOUND'],
    [{ ...to, op: 'done', transfer, lease: 7, reader: 0 }, 'ERR_NOT_FOUND'],
    [{ ...to, op: 'release', by: { transfer } }, 'ERR_INVALID_ARGUMENT'],
  ] as [unknown, string][]) {
    await peer.call(SERVICE, message).then(
      () => assert.unreachable(JSON.stringify(message)),
      (error) => assert.is(error instanceof MooncakeError && error.code, code, JSON.stringify(message)),
    );
  }
  assert.is(counters(prefill).handoversHeld, 1);
  const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: params });
  await drive([prefill, decode], idle([prefill, decode]));
  assert.equal([decoded.externalTokens, counters(prefill).handoversDone], [TOKENS.length, 1]);
  for (const one of [prefill, decode]) clean(one);
  await stranger.close();
  await Promise.all([prefill, decode].map(closeSide));
});

test('what is verified is the choice of the decode, in either mode', async () => {
  for (const mode of ['pull', 'push'] as const) {
    for (const verify of ['full', 'off'] as const) {
      const prefill = side({ connector: { verify: verify === 'full' ? 'off' : 'full' } });
      const decode = side({ connector: { mode, verify } });
      const params = await prefillOf(prefill);
      const decoded = decode.engine.add({ tokens: TOKENS, kvTransferParams: params });
      await drive([prefill, decode], idle([prefill, decode]));
      assert.is(decoded.externalTokens, TOKENS.length);
      const { bytesLoaded, bytesVerified } = counters(decode);
      assert.is(bytesVerified, verify === 'full' ? bytesLoaded : 0);
      await Promise.all([prefill, decode].map(closeSide));
    }
  }
});

test('a prompt that cannot be named is not handed over, and stops nothing', async () => {
  const transfer = new LocalTransfer();
  const engine = { engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 4 } } as const;
  const scheduler = new MooncakeConnector({ transfer }).createScheduler(engine);
  const source = decodeParams({ ...side(), transfers: [transfer] }, 'b');
  for (const kvTransferParams of [{ do_remote_decode: true, transfer_id: 'a' }, source]) {
    const request = { requestId: 'r', tokens: [1, -1, 3], numPromptTokens: 3, kvTransferParams };
    scheduler.onNewRequest(request);
    assert.equal(scheduler.getNumNewMatchedTokens(request, 0), [0, false]);
    assert.equal(scheduler.requestFinished(request, [[1]]), [false, null]);
  }
  assert.is(scheduler.stats().handoversRefused, 2);
  assert.is(scheduler.hasPendingWork(), false);
  await transfer.close();
});

test('a cache that cannot be described leaves no memory registered', async () => {
  const transfer = new LocalTransfer();
  const engine = { engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 4 } } as const;
  const worker = new MooncakeConnector({ transfer }).createWorker(engine, 0);
  const memories = [new Uint8Array(8), new Uint8Array(0)];
  let registered: readonly number[] = [];
  const failing = (segments: readonly number[]): never => {
    registered = segments;
    throw new Error('no layout');
  };
  assert.throws(() => worker.registerKvCaches({ memories: memories.slice(0, 1), layout: failing }), 'no layout');
  for (const segment of registered) assert.throws(() => transfer.memory(segment));
  assert.is(registered.length, 1);
  assert.throws(() => worker.registerKvCaches({ memories, layout: failing }));
  assert.throws(() => transfer.memory(registered[0] + 1));
  await transfer.close();
});

test.run();
