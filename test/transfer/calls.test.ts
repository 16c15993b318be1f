// Requests between peers over every transfer: what crosses, errors by code, aborts that reach the handler, closing.
import fc from 'fast-check';
import { MooncakeError, type Peer, type Transfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { KINDS, rejects, throws, withPair } from './support.js';

/** Plain data as documented. -0 crosses as 0, so it is left out. */
const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, undefined, true, false),
    fc.double({ noNaN: false }).filter((n) => !Object.is(n, -0)),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
    fc.string(),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      tie('value'),
      { maxKeys: 20, noNullPrototype: true },
    ),
  ),
})).value;

/** Resolves when the handler of `service` has been called, with its signal. */
function hanging(transfer: Transfer, service: string): Promise<AbortSignal> {
  return new Promise((resolve) => {
    transfer.serve(service, (_message, { signal }) => {
      resolve(signal);
      return new Promise(() => {});
    });
  });
}

for (const kind of KINDS) {
  test(`${kind.name}: plain data crosses unchanged and unshared`, () =>
    withPair(kind, async (a, b) => {
      let seen: unknown;
      b.serve('echo', (message) => (seen = message));
      const peer = await a.connect(b.address);
      await fc.assert(
        fc.asyncProperty(plain, async (value) => {
          assert.equal(await peer.call('echo', value), value);
          assert.equal(seen, value);
        }),
        { numRuns: 300 },
      );
      const sent = { list: [1], bytes: Uint8Array.of(1, 2) };
      const answer = (await peer.call('echo', sent)) as typeof sent;
      for (const other of [seen as typeof sent, answer]) {
        other.list.push(2);
        other.bytes[0] = 9;
      }
      assert.equal(sent, { list: [1], bytes: Uint8Array.of(1, 2) });
    }));

  test(`${kind.name}: what is no plain data is named by its place`, () =>
    withPair(kind, async (a, b) => {
      b.serve('echo', (message) => message);
      b.serve('odd', () => new Map());
      const peer = await a.connect(b.address);
      let deep: unknown = 1;
      for (let i = 0; i < 70; i++) deep = [deep];
      const cases: [unknown, string][] = [
        [() => 1, 'message'],
        [{ a: [1, new Map()] }, 'message.a[1]'],
        [new Date(), 'message'],
        [new Float64Array(2), 'message'],
        [Symbol('x'), 'message'],
        [2n ** 64n, 'message'],
        [deep, `message${'[0]'.repeat(64)}`],
        [new Uint8Array(17 * 2 ** 20), 'message'],
      ];
      // What would arrive as something else: UTF-8 has no lone surrogates, the decoder no key __proto__.
      const detached = new Uint8Array(8);
      structuredClone(detached.buffer, { transfer: [detached.buffer] });
      cases.push(
        ['key \ud800', 'message'],
        [{ a: `${'x'.repeat(100)}\udc00` }, 'message.a'],
        [{ '\ud800': 1 }, 'message'],
        [JSON.parse('[{ "__proto__": 1 }]'), 'message[0]'],
        [{ bytes: detached }, 'message.bytes'],
      );
      for (const [value, argument] of cases) await rejects(peer.call('echo', value), 'ERR_INVALID_ARGUMENT', argument);
      await rejects(peer.call('odd', 1), 'ERR_INVALID_ARGUMENT', 'answer');
      await rejects(peer.call(5 as never, 1), 'ERR_INVALID_ARGUMENT', 'service');
      assert.is(await peer.call('echo', 'still'), 'still');
      let doubled: unknown = 1;
      for (let i = 0; i < 60; i++) doubled = [doubled, doubled];
      await rejects(peer.call('echo', doubled), 'ERR_INVALID_ARGUMENT');
      const wide = Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`${i}`, i]));
      assert.equal(await peer.call('echo', wide), wide, 'more keys than 16 bits count');
    }));

  test(`${kind.name}: errors cross by code`, () =>
    withPair(kind, async (a, b) => {
      b.serve('full', () => {
        throw new MooncakeError('ERR_NO_SPACE', 'no room for 5 bytes', { argument: 'size', value: 5 });
      });
      b.serve('bug', async () => {
        throw new TypeError('x is not a function');
      });
      b.serve('odd', () => {
        throw Object.create(null);
      });
      b.serve('worse', () => {
        throw Object.defineProperty(new Error(), 'message', { value: Symbol('no text') });
      });
      b.serve('foreign', () => {
        throw new MooncakeError('ERR_2' as never, 'of another version');
      });
      b.serve('long', () => {
        throw new MooncakeError('ERR_NO_SPACE', 'no room', { argument: 'x'.repeat(20 * 2 ** 20) });
      });
      const peer = await a.connect(b.address);
      const error = await rejects(peer.call('full', null), 'ERR_NO_SPACE', 'size');
      assert.is(error.message, 'no room for 5 bytes');
      assert.match((await rejects(peer.call('bug', null), 'ERR_PEER')).message, /x is not a function/);
      await rejects(peer.call('odd', null), 'ERR_PEER');
      await rejects(peer.call('worse', null), 'ERR_PEER');
      assert.match((await rejects(peer.call('foreign', null), 'ERR_PEER')).message, /of another version/);
      assert.is((await rejects(peer.call('long', null), 'ERR_NO_SPACE')).argument, 'x'.repeat(1000));
      await rejects(peer.call('none', null), 'ERR_NOT_SUPPORTED');
    }));

  test(`${kind.name}: services come and go, one handler a name`, () =>
    withPair(kind, async (a, b) => {
      const stop = b.serve('one', () => 1);
      throws(() => b.serve('one', () => 2), 'ERR_INVALID_ARGUMENT', 'service');
      throws(() => b.serve('', () => 2), 'ERR_INVALID_ARGUMENT', 'service');
      throws(() => b.serve('transfer.segment', () => 2), 'ERR_INVALID_ARGUMENT', 'service');
      throws(() => b.serve('two', 2 as never), 'ERR_INVALID_ARGUMENT', 'handler');
      const peer = await a.connect(b.address);
      assert.is(await peer.call('one', null), 1);
      stop();
      await rejects(peer.call('one', null), 'ERR_NOT_SUPPORTED');
      b.serve('one', () => 3);
      stop();
      assert.is(await peer.call('one', null), 3, 'the old handler does not take the new one away');
    }));

  test(`${kind.name}: abort and deadline reach the handler`, () =>
    withPair(kind, async (a, b) => {
      const peer = await a.connect(b.address);
      for (const [service, limit] of [
        ['aborted', 'ERR_ABORTED'],
        ['late', 'ERR_TIMEOUT'],
      ]) {
        const started = hanging(b, service);
        const controller = new AbortController();
        const limits = limit === 'ERR_ABORTED' ? { signal: controller.signal } : { timeoutMs: 30 };
        const call = rejects(peer.call(service, null, limits), limit);
        const signal = await started;
        controller.abort();
        await call;
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
      }
    }));

  test(`${kind.name}: a handler talks back to its caller and reads its memory`, () =>
    withPair(kind, async (a, b) => {
      const memory = new Uint8Array(4).fill(5);
      const target = new Uint8Array(4);
      const [here, there] = [a.register(memory, { name: 'kv' }), b.register(target)];
      a.serve('name', () => 'a');
      b.serve('pull', async (_message, context) => {
        const { id } = await context.peer.segment('kv');
        await context.peer.read(one(id, 0, there, 0, 4));
        return context.peer.call('name', null);
      });
      const peer = await a.connect(b.address);
      assert.is(await peer.call('pull', null), 'a');
      assert.equal(target, memory);
      assert.is(here, 0);
    }));

  test(`${kind.name}: one peer an address, until it is closed`, () =>
    withPair(kind, async (a, b) => {
      const [first, second] = await Promise.all([a.connect(b.address), a.connect(b.address)]);
      assert.is(first, second);
      assert.is(await a.connect(b.address), first);
      assert.is(first.address, b.address);
      assert.is(first.generation, b.generation);
      assert.match(first.generation, /^[0-9a-f]{16}$/);
      await first.close();
      await first.close();
      assert.is((await first.closed).code, 'ERR_CLOSED');
      await rejects(first.call('x', null), 'ERR_CLOSED');
      await rejects(first.segment('x'), 'ERR_CLOSED');
      await rejects(first.read(one(0, 0, 0, 0, 1)), 'ERR_CLOSED');
      const again = await a.connect(b.address);
      assert.is.not(again, first);
      await rejects(again.call('x', null), 'ERR_NOT_SUPPORTED');
    }));

  test(`${kind.name}: close ends what is under way on both sides`, () =>
    withPair(kind, async (a, b) => {
      const size = 64 * 2 ** 20;
      const [here, there] = [a.register(new Uint8Array(size)), b.register(new Uint8Array(size))];
      const peer = await a.connect(b.address);
      const started = hanging(b, 'hang');
      const back = new Promise<Peer>((resolve) => b.serve('peer', (_message, context) => resolve(context.peer)));
      await peer.call('peer', null);
      const ended = [
        rejects(peer.call('hang', null), 'ERR_CLOSED'),
        rejects(peer.read(one(there, 0, here, 0, size)), 'ERR_CLOSED'),
        rejects((await back).write(one(there, 0, here, 0, size)), 'ERR_CLOSED'),
      ];
      const signal = await started;
      await b.close();
      await Promise.all(ended);
      assert.ok(signal.aborted);
      assert.is((await peer.closed).code, 'ERR_CLOSED');
      assert.is((await (await back).closed).code, 'ERR_CLOSED');
      await b.close();
      throws(() => b.register(new Uint8Array(1)), 'ERR_CLOSED');
      throws(() => b.serve('x', () => 1), 'ERR_CLOSED');
      await rejects(b.connect(a.address), 'ERR_CLOSED');
      await rejects(b.copy(one(there, 0, there, 0, 1)), 'ERR_CLOSED');
      await rejects(a.connect(b.address), 'ERR_PEER', 'peer');
      await Promise.all([a.unregister(here), b.unregister(there)]);
    }));

  test(`${kind.name}: addresses that are none`, () =>
    withPair(kind, async (a) => {
      const wrong = ['', 'x', 'local', 'tcp://', 'tcp://h', 'tcp://h:0', 'tcp://h:65536', 'tcp://[::1', 'tcp://[x]:1'];
      for (const address of [...wrong, 'tcp://a b:1', 'http://h:1', 5, null, {}]) {
        await rejects(a.connect(address as never), 'ERR_INVALID_ARGUMENT', 'address');
      }
    }));
}

test.run();
