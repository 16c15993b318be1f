// Work over all objects: by regular expression, all at once, and listings; none of it holds anybody up.
import { Keys, MetadataService, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, calls, segment, start } from './support.js';

test('a pattern is searched in the whole key', async () => {
  const { service, put, peek } = start(1000);
  const names = ['llama@tp0@00ff', 'llama@tp1@00ff', 'qwen@tp0@ff00', 'ключ', '\ufeffmark'];
  for (const name of names) put(name, 10);
  const removed = async (pattern: string) => {
    const before = names.filter((name) => peek(name));
    const count = await service.removeByRegex(pattern, false);
    const gone = before.filter((name) => !peek(name));
    assert.is(count, gone.length);
    for (const name of gone) put(name, 10);
    return gone;
  };
  assert.equal(await removed('tp0'), ['llama@tp0@00ff', 'qwen@tp0@ff00']);
  assert.equal(await removed('^llama.*ff$'), ['llama@tp0@00ff', 'llama@tp1@00ff']);
  assert.equal(await removed('^tp0'), []);
  assert.equal(await removed('к.ю'), ['ключ']);
  assert.equal(await removed('^.mark'), ['\ufeffmark']);
  assert.equal(await removed('^(llama|qwen)@tp[1-9]@[0-9a-f]{4}$'), ['llama@tp1@00ff']);
});

test('removal spares what is leased or being written, unless it is forced', async () => {
  const { service, put, read, has, begin } = start(1000);
  for (const name of ['free', 'read', 'looked-up', 'pinned']) put(name, 10, { hardPin: name === 'pinned' });
  begin('open', 10);
  read('read');
  has('looked-up');
  assert.is(await service.removeByRegex('.', false), 2);
  assert.equal((await service.keys()).sort(), ['looked-up', 'read']);
  assert.is(await service.removeAll(false), 0);
  assert.is(await service.removeAll(true), 3);
  assert.equal([service.stats().objects, service.stats().incomplete], [0, 0]);
});

test('other tenants are not touched', async () => {
  const { service, put, peek } = start(1000);
  put('a', 10, {}, 'one');
  put('a', 10, {}, 'two');
  assert.is(await service.removeAll(true, 'one'), 1);
  assert.equal([await service.keys('one'), await service.keys('two')], [[], ['a']]);
  assert.is(await service.removeAll(true, 'never seen'), 0);
  assert.is(peek('a', 'two'), true);
});

test('replicas by pattern, of what is readable', async () => {
  const { service, put, begin, place } = start(1000);
  for (const name of ['a1', 'a2', 'b1']) put(name, 10);
  begin('a3', 10);
  const found = await service.replicasByRegex('^a');
  assert.equal([...found.keys()].sort(), ['a1', 'a2']);
  for (const [name, replicas] of found) {
    assert.equal(
      replicas.map(({ segment, offset, size }) => ({ segment, offset, size })),
      place(name),
    );
  }
});

test('patterns that take a backtracking engine for ever take no time', async () => {
  const { service, put } = start(200_000);
  put('a'.repeat(60_000), 10);
  put(`${'a'.repeat(50)}!`, 10);
  for (const pattern of ['(a+)+$', '(a|a)*b$', '(a*)*!$', '^(([a-z])+.)+[A-Z]([a-z])+$']) {
    await service.replicasByRegex(pattern);
  }
  assert.is(await service.removeByRegex('(a+)+$', false), 1);
});

test('what is no pattern of RE2 is refused and says why; the service goes on', async () => {
  const { service, put } = start(1000);
  put('a', 10);
  for (const [pattern, why] of [
    ['(a)\\1', /no back-references and no look-around/],
    ['(?=a)', /no back-references and no look-around/],
    ['(?<!a)b', /no back-references and no look-around/],
    ['[', /missing closing/],
    ['a{1001}', /repeat count/],
    ['', /1 to 1024 characters/],
    ['a'.repeat(1025), /1 to 1024 characters/],
    [`${'[a-z]{900}'.repeat(5)}`, /instructions/],
    ['x{1000}'.repeat(140), /counted repeats/],
    ['(((x{10}){10}){10})'.repeat(6), /counted repeats/],
    [5, /1 to 1024 characters/],
  ] as const) {
    for (const call of [
      () => service.removeByRegex(pattern as string, true),
      () => service.replicasByRegex(pattern as string),
    ]) {
      const error = await call().then(
        () => undefined,
        (reason) => reason,
      );
      assert.instance(error, MooncakeError, `${pattern}`);
      assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', 'pattern']);
      assert.match(error.message, why);
    }
  }
  assert.equal(await service.keys(), ['a']);
});

test('a pattern that would take seconds for a long key is refused, not for short ones', async () => {
  const { service, put, peek } = start(200_000);
  const pattern = 'a[ab]{900}[c-d]';
  const long = Array.from({ length: 60_000 }, (_, i) => ((i * i) % 7 < 3 ? 'a' : 'b')).join('');
  put('short', 10);
  assert.is((await service.replicasByRegex(pattern)).size, 0);
  put(long, 10);
  const error = await service.removeByRegex(pattern, true).then(
    () => undefined,
    (reason) => reason,
  );
  assert.instance(error, MooncakeError);
  assert.equal([error.code, error.argument], ['ERR_INVALID_ARGUMENT', 'pattern']);
  assert.match(error.message, /too long for a key of 60000 characters/);
  assert.is(peek(long), true);
  assert.is(await service.removeByRegex('[ab]{20}$', false), 1);
});

test('a long removal lets others in, and meets each object that stays exactly once', async () => {
  const { service, put, peek } = start(1_000_000);
  for (let i = 0; i < 30_000; i++) put(`key-${i}`, 1);
  let turns = 0;
  let running = true;
  const turn = () => {
    turns++;
    if (!running) return;
    // Others come and go meanwhile, and are none of the scan's business.
    put(`other-${turns}`, 1);
    setImmediate(turn);
  };
  setImmediate(turn);
  const count = await service.removeByRegex('^key-.*7$', false);
  running = false;
  assert.is(count, 3000);
  assert.ok(turns > 1, 'the event loop had its turns');
  assert.is(peek('key-7'), false);
  assert.is((await service.keys()).filter((key) => key.startsWith('key-')).length, 27_000);
});

test('a deadline ends a scan with what it has done', async () => {
  const service = new MetadataService({ scanDeadlineMs: 1, leaseTtlMs: 0 });
  service.mountSegment(segment(1, 2 ** 30), ALICE);
  const names = Array.from({ length: 50_000 }, (_, i) => `key-${i}`);
  service.putStart(ALICE, Keys.from(names), new Float64Array(names.length).fill(1), {});
  service.putEnd(ALICE, Keys.from(names), Array(names.length).fill(undefined));
  const removed = await service.removeAll(false);
  assert.ok(removed < names.length, `${removed}`);
  assert.is(service.stats().objects, names.length - removed);
  assert.is(calls(service).put('one more', 1), 0);
});

test.run();
