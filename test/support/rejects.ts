import { MooncakeError } from 'mooncake-ts';
import * as assert from 'uvu/assert';

/** The error of `call`, which must be a MooncakeError of this code that names this argument. */
export function rejects(argument: string, call: () => unknown, code = 'ERR_INVALID_ARGUMENT'): MooncakeError {
  try {
    call();
  } catch (error) {
    assert.instance(error, MooncakeError, `${argument}: ${error}`);
    const { code: actual, argument: named, message } = error as MooncakeError;
    assert.is(actual, code, message);
    assert.is(named, argument, message);
    return error as MooncakeError;
  }
  return assert.unreachable(`${argument} was accepted`) as never;
}
