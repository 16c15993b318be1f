// Tenants: name spaces of their own, quotas, and refusal of those that are not known.
import { type MetadataOptions, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { start } from './support.js';

test('the same key of two tenants is two objects', () => {
  const { service, put, read, remove, peek } = start(1000);
  put('a', 100, {}, 'one');
  put('a', 200, {}, 'two');
  put('a', 300);
  const sizes = ['one', 'two', 'default', ''].map((tenant) => {
    const found = read('a', tenant);
    return found.ok && found.value.size;
  });
  assert.equal(sizes, [100, 200, 300, 300]);
  assert.is(remove('a', true, 'one'), 0);
  assert.equal(
    ['one', 'two', 'default'].map((tenant) => peek('a', tenant)),
    [false, true, true],
  );
  assert.equal(service.stats().tenants, {
    one: { objects: 0, usedBytes: 0, quotaBytes: null },
    two: { objects: 1, usedBytes: 200, quotaBytes: null },
    default: { objects: 1, usedBytes: 300, quotaBytes: null },
  });
});

test('a tenant that only looks does not come to be', () => {
  const { service, read, has, remove } = start(1000);
  assert.equal([read('a', 'x').ok, has('a', 'x'), remove('a', true, 'x')], [false, 0, -704]);
  assert.equal(service.stats().tenants, {});
});

test('where tenants are listed all others are refused, in every call', async () => {
  const { service, keys, begin, status, end, revoke, beginUpsert, has, read, remove } = start(1000, {
    tenants: { one: {} },
  });
  for (const tenant of ['two', 'default', '__proto__', '']) {
    assert.equal(
      [status(begin('a', 1, {}, undefined, tenant)), end('a', undefined, tenant), revoke('a', undefined, tenant)],
      [-1701, -1701, -1701],
    );
    assert.is(status(beginUpsert('a', 1, {}, undefined, tenant)), -1701);
    assert.equal([has('a', tenant), remove('a', true, tenant)], [-1701, -1701]);
    assert.equal(read('a', tenant), { ok: false, status: -1701, why: 'unknown-tenant' });
    assert.equal(service.peek(keys('a'), tenant), [{ ok: false, status: -1701, why: 'unknown-tenant' }]);
    for (const call of [
      service.removeAll(true, tenant),
      service.removeByRegex('.', true, tenant),
      service.keys(tenant),
      service.replicasByRegex('.', tenant),
    ]) {
      const error = await call.then(
        () => undefined,
        (reason) => reason,
      );
      assert.instance(error, MooncakeError);
      assert.equal([error.code, error.argument], ['ERR_UNKNOWN_TENANT', 'tenant']);
    }
  }
  assert.is(status(begin('a', 1, {}, undefined, 'one')), 0);
});

test('a quota counts every copy, from the start of a put to the removal of the object', () => {
  const tenants = new Map([['default', { quotaBytes: 500 }]]);
  const { service, put, begin, revoke, remove, status } = start(1000, { tenants });
  const used = () => service.stats().tenants.default.usedBytes;
  assert.is(status(begin('a', 501)), -1700);
  assert.is(status(begin('a', 251, { replicas: 2 })), -1700);
  begin('a', 400);
  assert.is(used(), 400);
  assert.is(status(begin('b', 101)), -1700);
  revoke('a');
  assert.is(used(), 0);
  put('a', 400);
  remove('a');
  assert.is(used(), 0);
});

test("a tenant over its quota loses objects of its own, the least recently used first, and nobody else's", () => {
  const tenants = { one: { quotaBytes: 300 }, two: {} };
  const { service, clock, put, read, has, peek } = start(10_000, { tenants });
  put('x', 100, {}, 'two');
  for (const name of ['a', 'b', 'c']) put(name, 100, {}, 'one');
  read('a', 'one');
  clock.now += 100;
  assert.is(put('d', 100, {}, 'one'), 0);
  assert.equal(
    ['a', 'b', 'c', 'd'].map((name) => peek(name, 'one')),
    [true, false, true, true],
  );
  for (const name of ['a', 'c', 'd']) read(name, 'one');
  assert.is(put('e', 100, {}, 'one'), -1700, 'all that it has is being read');
  clock.now += 100;
  has('a', 'one');
  assert.is(put('e', 200, {}, 'one'), 0);
  assert.equal(
    ['a', 'c', 'd', 'e'].map((name) => peek(name, 'one')),
    [true, false, false, true],
  );
  assert.is(peek('x', 'two'), true);
  assert.equal(service.stats().tenants.one, { objects: 2, usedBytes: 300, quotaBytes: 300 });
});

test('what no segment can hold costs the tenant nothing', () => {
  const { service, put } = start(1000, { tenants: { default: { quotaBytes: 1200 } } });
  for (let i = 0; i < 5; i++) put(`key-${i}`, 100);
  assert.is(put('large', 1100), -200);
  assert.is(service.stats().evictedObjects, 0);
});

test('eviction for space takes from everybody', () => {
  const { put, peek } = start(300, { tenants: { one: { quotaBytes: 200 }, two: { quotaBytes: 300 } } });
  put('a', 100, {}, 'one');
  put('b', 100, {}, 'two');
  put('c', 100, {}, 'one');
  assert.is(put('d', 100, {}, 'two'), 0);
  assert.is(peek('a', 'one'), false);
});

test('policies that are none are refused by name', () => {
  for (const [tenants, argument] of [
    [5, 'tenants'],
    [null, 'tenants'],
    [{ one: null }, 'tenants.one'],
    [{ one: { quotaBytes: -1 } }, 'tenants.one.quotaBytes'],
    [{ one: { quotaBytes: '1GB' } }, 'tenants.one.quotaBytes'],
  ] as const) {
    try {
      start(1000, { tenants: tenants as unknown as MetadataOptions['tenants'] });
      assert.unreachable(argument);
    } catch (error) {
      assert.equal(
        [(error as MooncakeError).code, (error as MooncakeError).argument],
        ['ERR_INVALID_ARGUMENT', argument],
      );
    }
  }
});

test.run();
