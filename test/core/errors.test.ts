import { headRange, MooncakeError } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

test('an error carries its code, the argument and the value', () => {
  const error = new MooncakeError('ERR_INVALID_ARGUMENT', 'blockSize must be positive', {
    argument: 'blockSize',
    value: 0,
  });
  assert.instance(error, Error);
  assert.is(error.code, 'ERR_INVALID_ARGUMENT');
  assert.is(error.argument, 'blockSize');
  assert.is(error.value, 0);
});

test('a refusal never fails over the value it shows, and stays short', () => {
  class Loud {}
  Object.defineProperty(Loud.prototype, 'constructor', {
    get() {
      throw new Error('no constructor');
    },
  });
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const symbol = { __proto__: { constructor: { name: Symbol('name') } } };
  for (const value of [new Loud(), symbol, Object.create(null), 10n ** 400n, 'x'.repeat(1000), Symbol('s'), proxy]) {
    try {
      headRange(value as never, 0, 1);
      assert.unreachable('accepted');
    } catch (error) {
      assert.instance(error, MooncakeError);
      assert.is((error as MooncakeError).argument, 'heads');
      assert.ok((error as MooncakeError).message.length < 200, (error as MooncakeError).message);
    }
  }
});

test.run();
