import { MooncakeError, MooncakeStore } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const refused = (name: string) => (error: unknown) =>
  error instanceof MooncakeError && error.code === 'ERR_NOT_SUPPORTED' && error.message.startsWith(name);

test('what is promised for later says so when it is used, not when it is imported', () => {
  assert.throws(() => MooncakeStore.connect(), refused('MooncakeStore.connect'));
});

test.run();
