import { MooncakeError } from 'mooncake-ts';
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

test.run();
