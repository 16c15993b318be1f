/** Several connectors as one: who loads, who saves, when blocks are free, what is reported. */
import {
  type ConnectorOutput,
  type KvConnector,
  type KvTransferParams,
  LocalTransfer,
  MooncakeConnector,
  MooncakeError,
  MultiConnector,
  type SchedulerConnector,
  type WorkerConnector,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from './harness.js';
import { NaiveConnector } from './naive.js';
import { drive, idle, type Side, transferId } from './pd-pair.js';

const TOKENS = tokensOf(1, 18);

/** A connector that moves nothing: it offers, holds and reports what a test says, and notes what it was told. */
class Scripted implements KvConnector {
  readonly name: string;
  offer: number | null = 0;
  /** Worker reports of blocks that may be freed, by request. */
  holds = false;
  params: KvTransferParams | null = null;
  sending: string[] = [];
  receiving: string[] = [];
  errors: number[] = [];
  throwing: 'now' | 'later' | null = null;
  /** Calls of its worker half that throw. */
  readonly failing = new Set<string>();
  refusesSteps = false;
  /** What its waits wait for. */
  ready: Promise<unknown> = Promise.resolve();
  readonly calls: unknown[][] = [];

  constructor(name = 'scripted') {
    this.name = name;
  }

  createScheduler(): SchedulerConnector {
    return {
      onNewRequest: () => {},
      getNumNewMatchedTokens: () => [this.offer, true],
      updateStateAfterAlloc: (_, __, tokens) => this.calls.push(['alloc', tokens]),
      buildConnectorMeta: () => {
        if (this.refusesSteps) throw new Error('no step');
        return `work of ${this.name}`;
      },
      updateConnectorOutput: (output: ConnectorOutput) => this.calls.push(['output', output]),
      requestFinished: () => [this.holds, this.params],
      hasPendingWork: () => false,
      setHandshakeMetadata: (metadata) => this.calls.push(['handshake', metadata]),
      stats: () => ({ asked: 1 }),
      shutdown: () => this.#shutdown(),
    };
  }

  createWorker(): WorkerConnector {
    const note = (name: string, what: unknown) => {
      this.calls.push([name, what]);
      if (this.failing.has(name)) throw new Error(`${name} of ${this.name}`);
    };
    return {
      registerKvCaches: () => {},
      getHandshakeMetadata: () => `rank of ${this.name}`,
      bindConnectorMetadata: (metadata) => note('bind', metadata),
      clearConnectorMetadata: () => note('clear', true),
      handlePreemptions: async (requests) => {
        note('preempt', requests);
        await this.ready;
      },
      startLoadKv: () => note('load', true),
      waitForLayerLoad: async (layer) => {
        note('wait', layer);
        await this.ready;
      },
      saveKvLayer: (layer) => note('save', layer),
      waitForSave: async () => {
        note('saved', true);
        await this.ready;
      },
      getFinished: () => {
        note('finished', true);
        return { sending: this.sending.splice(0), receiving: this.receiving.splice(0) };
      },
      getBlockIdsWithLoadErrors: () => {
        note('errors', true);
        return this.errors.splice(0);
      },
      stats: () => ({ moved: 2 }),
      shutdown: () => this.#shutdown(),
    };
  }

  called(what: string): unknown[] {
    return this.calls.filter(([name]) => name === what).map(([, argument]) => argument);
  }

  #shutdown(): Promise<void> {
    this.calls.push(['shutdown', true]);
    if (this.throwing === 'now') throw new Error('now');
    return this.throwing === 'later' ? Promise.reject(new Error('later')) : Promise.resolve();
  }
}

const ENGINE = { engineId: 'e', model: 'm', role: 'both', hash: { blockSize: 4 } } as const;
const REQUEST = { requestId: 'r', numPromptTokens: 18, tokens: TOKENS };
const STEP = {
  newRequests: [],
  cachedRequests: [],
  numScheduledTokens: {},
  finishedRequestIds: [],
  preemptedRequestIds: [],
};

test('the first that offers tokens loads; the others hear of 0; unknown is unknown until an earlier one offers', () => {
  const [a, b] = [new Scripted('a'), new Scripted('b')];
  const scheduler = new MultiConnector([a, b]).createScheduler(ENGINE);
  for (const [first, second, expected, loads] of [
    [0, 0, 0, [0, 0]],
    [8, 12, 8, [8, 0]],
    [0, 12, 12, [0, 12]],
    [8, null, 8, [8, 0]],
  ] as const) {
    [a.offer, b.offer] = [first, second];
    assert.equal(scheduler.getNumNewMatchedTokens(REQUEST, 0)[0], expected);
    scheduler.updateStateAfterAlloc(REQUEST, [[1]], expected);
    assert.equal([a.called('alloc').at(-1), b.called('alloc').at(-1)], loads);
  }
  for (const offers of [
    [null, 12],
    [0, null],
    [null, null],
  ]) {
    [a.offer, b.offer] = offers;
    assert.is(scheduler.getNumNewMatchedTokens(REQUEST, 0)[0], null);
  }
  // A choice does not outlive the question that it answered.
  scheduler.updateStateAfterAlloc(REQUEST, [[1]], 0);
  assert.equal([a.called('alloc').at(-1), b.called('alloc').at(-1)], [0, 0]);
});

test('each gets its own metadata and handshake; every call reaches all', async () => {
  const parts = [new Scripted('a'), new Scripted('b')];
  const multi = new MultiConnector(parts);
  const scheduler = multi.createScheduler(ENGINE);
  const worker = multi.createWorker(ENGINE, 0);
  scheduler.setHandshakeMetadata([worker.getHandshakeMetadata(), worker.getHandshakeMetadata()]);
  worker.bindConnectorMetadata(structuredClone(scheduler.buildConnectorMeta(STEP)));
  await worker.handlePreemptions(['r']);
  await worker.waitForLayerLoad(3);
  worker.saveKvLayer(4);
  for (const part of parts) {
    assert.equal(part.called('bind'), [`work of ${part.name}`]);
    assert.equal(part.called('handshake'), [[`rank of ${part.name}`, `rank of ${part.name}`]]);
    assert.equal([part.called('preempt'), part.called('wait'), part.called('save')], [[['r']], [3], [4]]);
  }
});

test('blocks are kept until every connector that keeps them is done, in any order', () => {
  const parts = ['a', 'b', 'c'].map((name) => new Scripted(name));
  const multi = new MultiConnector(parts);
  const scheduler = multi.createScheduler(ENGINE);
  const worker = multi.createWorker(ENGINE, 0);
  const step = () => {
    worker.bindConnectorMetadata(structuredClone(scheduler.buildConnectorMeta(STEP)));
    return worker.getFinished([]).sending;
  };
  for (const holders of [[], [0], [1, 2], [0, 1, 2], [2, 0]]) {
    for (const [index, part] of parts.entries()) part.holds = holders.includes(index);
    const [delayFree] = scheduler.requestFinished(REQUEST, [[1]]);
    assert.is(delayFree, holders.length > 0);
    assert.is(scheduler.hasPendingWork(), holders.length > 1);
    for (const [at, holder] of holders.entries()) {
      parts[holder].sending.push('r');
      assert.equal(step(), at === holders.length - 1 ? ['r'] : []);
    }
  }
  for (const part of parts) part.holds = true;
  scheduler.requestFinished(REQUEST, [[1]]);
  for (const part of parts) part.sending.push('r');
  assert.equal(step(), ['r']);
});

test('parameters come from the first that has some; errors and finished loads are merged', () => {
  const [a, b] = [new Scripted('a'), new Scripted('b')];
  const multi = new MultiConnector([a, b]);
  b.params = { transfer_id: 'of b' };
  assert.equal(multi.createScheduler(ENGINE).requestFinished(REQUEST, [[1]]), [false, { transfer_id: 'of b' }]);
  a.params = { transfer_id: 'of a' };
  assert.equal(multi.createScheduler(ENGINE).requestFinished(REQUEST, [[1]]), [false, { transfer_id: 'of a' }]);
  [a.errors, b.errors, a.receiving, b.receiving] = [[1, 2], [2, 3], ['x'], ['y']];
  const worker = multi.createWorker(ENGINE, 0);
  assert.equal(worker.getFinished([]), { sending: [], receiving: ['x', 'y'] });
  assert.equal(worker.getBlockIdsWithLoadErrors(), [1, 2, 3]);
});

test('a connector that throws keeps no other from its work, and loses none of its reports', () => {
  const [bad, good] = [new Scripted('bad'), new Scripted('good')];
  const multi = new MultiConnector([bad, good]);
  const [scheduler, worker] = [multi.createScheduler(ENGINE), multi.createWorker(ENGINE, 0)];
  const metadata = scheduler.buildConnectorMeta(STEP);
  for (const [name, call] of Object.entries({
    bind: () => worker.bindConnectorMetadata(metadata),
    load: () => worker.startLoadKv(),
    save: () => worker.saveKvLayer(1),
    clear: () => worker.clearConnectorMetadata(),
  })) {
    bad.failing.add(name);
    assert.throws(call, `${name} of bad`);
    assert.is(good.called(name).length, 1, name);
  }
  // The one that throws comes last: what the first has said is told by the next call.
  const reversed = new MultiConnector([good, bad]).createWorker(ENGINE, 0);
  bad.failing.add('finished').add('errors');
  [good.sending, good.receiving, good.errors] = [['s'], ['r'], [7]];
  assert.throws(() => reversed.getFinished([]), 'finished of bad');
  assert.throws(() => reversed.getBlockIdsWithLoadErrors(), 'errors of bad');
  bad.failing.clear();
  assert.equal(reversed.getFinished([]), { sending: ['s'], receiving: ['r'] });
  assert.equal(reversed.getBlockIdsWithLoadErrors(), [7]);
  assert.equal(reversed.getFinished([]), { sending: [], receiving: [] });
  assert.equal(reversed.getBlockIdsWithLoadErrors(), []);
});

test('a wait that fails ends when no other connector uses the blocks any more', async () => {
  const [bad, slow] = [new Scripted('bad'), new Scripted('slow')];
  const worker = new MultiConnector([bad, slow]).createWorker(ENGINE, 0);
  for (const [name, call] of Object.entries({
    preempt: () => worker.handlePreemptions(['r']),
    wait: () => worker.waitForLayerLoad(0),
    saved: () => worker.waitForSave(),
  })) {
    bad.failing.add(name);
    let release!: () => void;
    slow.ready = new Promise<void>((resolve) => {
      release = resolve;
    });
    let ended = false;
    const waiting = call().finally(() => {
      ended = true;
    });
    waiting.catch(() => {});
    await new Promise((resolve) => setImmediate(resolve));
    assert.is(ended, false, name);
    release();
    await waiting.then(
      () => assert.unreachable(name),
      (error) => assert.is(error.message, `${name} of bad`),
    );
  }
});

test('a rank without a handshake is none of each connector; counts of senders survive a step that fails', () => {
  const [a, b] = [new Scripted('a'), new Scripted('b')];
  const multi = new MultiConnector([a, b]);
  const [scheduler, worker] = [multi.createScheduler(ENGINE), multi.createWorker(ENGINE, 0)];
  scheduler.setHandshakeMetadata([worker.getHandshakeMetadata(), null, ['rank of a']]);
  assert.equal(a.called('handshake'), [['rank of a', null, 'rank of a']]);
  assert.equal(b.called('handshake'), [['rank of b', null, null]]);

  [a.holds, b.holds] = [true, true];
  scheduler.requestFinished(REQUEST, [[1]]);
  b.refusesSteps = true;
  assert.throws(() => scheduler.buildConnectorMeta(STEP), 'no step');
  b.refusesSteps = false;
  worker.bindConnectorMetadata(scheduler.buildConnectorMeta(STEP));
  a.sending.push('r');
  assert.equal(worker.getFinished([]).sending, []);
  b.sending.push('r');
  assert.equal(worker.getFinished([]).sending, ['r']);
});

test('counters carry their connector; the shutdown of one that fails does not keep the others open', async () => {
  for (const throwing of ['now', 'later'] as const) {
    const parts = [new Scripted('one'), new Scripted('two'), new Scripted('two')];
    parts[0].throwing = throwing;
    const multi = new MultiConnector(parts);
    assert.is(multi.name, 'MultiConnector(one, two, two)');
    const [scheduler, worker] = [multi.createScheduler(ENGINE), multi.createWorker(ENGINE, 0)];
    assert.equal(scheduler.stats(), { 'one.asked': 1, 'two[1].asked': 1, 'two[2].asked': 1 });
    assert.equal(worker.stats(), { 'one.moved': 2, 'two[1].moved': 2, 'two[2].moved': 2 });
    for (const half of [scheduler, worker]) {
      await half.shutdown().then(
        () => assert.unreachable(),
        (error) => assert.is(error.message, throwing),
      );
    }
    for (const part of parts) assert.is(part.called('shutdown').length, 2);
  }
});

test('no connector, or something else, is refused by name', () => {
  for (const [connectors, argument] of [
    [[], 'connectors'],
    [undefined, 'connectors'],
    [[new Scripted(), {}], 'connectors[1]'],
  ] as const) {
    assert.throws(
      () => new MultiConnector(connectors as unknown as KvConnector[]),
      (error: unknown) => error instanceof MooncakeError && error.argument === argument,
    );
  }
});

/** An engine that shares a store of prefixes and hands over. */
function both(store: NaiveConnector, order: 'store first' | 'hand-over first'): Side {
  const transfer = new LocalTransfer();
  const failures: MooncakeError[] = [];
  const mooncake = new MooncakeConnector({ transfer, onLoadError: (error) => failures.push(error) });
  const connector = new MultiConnector(order === 'store first' ? [store, mooncake] : [mooncake, store]);
  return { engine: new HarnessEngine({ connector }), transfers: [transfer], failures };
}

for (const order of ['store first', 'hand-over first'] as const) {
  for (const async of [false, true]) {
    test(`a store and a hand-over, ${order}, loads ${async ? 'beside' : 'within'} steps`, async () => {
      const store = new NaiveConnector({ async });
      const sides = [both(store, order), both(store, order)];
      const [prefill, decode] = sides;
      await prefill.engine.run({ tokens: TOKENS.slice(0, 9) });
      const prefilled = prefill.engine.add({
        tokens: TOKENS,
        kvTransferParams: { do_remote_decode: true, transfer_id: transferId() },
      });
      await drive([prefill], () => prefilled.state === 'finished');
      assert.is(prefilled.externalTokens, 8, 'from the store');
      assert.is.not(prefill.engine.freeBlocks, prefill.engine.blocks, 'kept for the decode');
      const decoded = decode.engine.add({ tokens: TOKENS, maxTokens: 3, kvTransferParams: prefilled.params! });
      await drive(sides, idle(sides));
      // A step that loads is not saved by the naive store: what the prefill then computed is not there.
      assert.is(decoded.externalTokens, order === 'store first' ? (async ? 16 : 8) : 18);
      const stats = prefill.engine.workers[0].stats();
      const done = order === 'store first' ? 'handoversReleased' : 'handoversDone';
      assert.is(stats[`MooncakeConnector.${done}`], 1);
      for (const { engine, failures } of sides) {
        assert.equal([engine.corruptions, failures], [[], []]);
        assert.is(engine.freeBlocks, engine.blocks);
        await engine.close();
      }
      await Promise.all(sides.map(({ transfers }) => transfers[0].close()));
    });
  }
}

test.run();
