// Options of the service: refused by name where they are none.
import { Keys, MetadataService, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALICE, calls, segment, start } from './support.js';

test('options that are none are refused by name', () => {
  for (const [options, argument] of [
    [5, 'options'],
    [{ leaseTtlMs: -1 }, 'leaseTtlMs'],
    [{ leaseTtlMs: 1.5 }, 'leaseTtlMs'],
    [{ softPinTtlMs: 0 }, 'softPinTtlMs'],
    [{ softPinTtlMs: 2000, maxSoftPinTtlMs: 1000 }, 'softPinTtlMs'],
    [{ allowEvictSoftPinned: 'no' }, 'allowEvictSoftPinned'],
    [{ evictionRatio: 0 }, 'evictionRatio'],
    [{ evictionRatio: 1.1 }, 'evictionRatio'],
    [{ evictionHighWatermark: Number.NaN }, 'evictionHighWatermark'],
    [{ putReleaseMs: 10 }, 'putReleaseMs'],
    [{ allocationStrategy: 'cxl' }, 'allocationStrategy'],
    [{ alignment: 48 }, 'alignment'],
    [{ shards: 0 }, 'shards'],
    [{ recentLosses: 0 }, 'recentLosses'],
    [{ scanDeadlineMs: 0 }, 'scanDeadlineMs'],
    [{ now: 5 }, 'now'],
    [{ random: 5 }, 'random'],
  ] as const) {
    try {
      new MetadataService(options as never);
    } catch (error) {
      assert.instance(error, MooncakeError);
      assert.equal(
        [(error as MooncakeError).code, (error as MooncakeError).argument],
        ['ERR_INVALID_ARGUMENT', argument],
      );
      continue;
    }
    assert.unreachable(argument);
  }
});

test('a clock that tells no time is refused in the call, which changes nothing', () => {
  const { service, clock, put, peek } = start(1000);
  put('a', 10);
  clock.now = Number.NaN;
  assert.throws(() => put('b', 10), /now\(\) must be a time in milliseconds, got NaN/);
  clock.now = 2000;
  assert.equal([peek('a'), peek('b'), service.stats().incomplete], [true, false, 0]);
});

test('leases, pins and the watermark are by default what they are in the stock master', () => {
  const clock = { now: 0 };
  const service = new MetadataService({ now: () => clock.now });
  service.mountSegment(segment(1, 6400), ALICE);
  const { put, read, remove, peek } = calls(service);
  put('a', 64);
  assert.is(read('a').ok && service.getReplicas(Keys.from(['a']))[0].ok, true);
  clock.now = 9_999;
  assert.is(remove('a'), -706);
  clock.now = 10_000;
  assert.is(remove('a'), 0);
  put('pinned', 64, { softPin: 'enable' });
  for (let i = 0; i < 89; i++) put(`key-${i}`, 64);
  assert.is(service.stats().evictedObjects, 0);
  put('one more', 64);
  assert.is(service.stats().evictedObjects, 5, 'a twentieth of 90, above nine tenths of 100');
  clock.now += 30 * 60_000 - 1;
  for (let i = 0; i < 200; i++) put(`later-${i}`, 64);
  assert.is(peek('pinned'), true);
  clock.now += 1;
  for (let i = 0; i < 10; i++) put(`last-${i}`, 64);
  assert.is(peek('pinned'), false);
});

test.run();
