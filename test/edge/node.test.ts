import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { measure, note } from './measure.js';
import { run } from './scenario.js';
import { expectation } from './support/expect.js';

test('Node: the edge entry hashes, matches, chooses and refuses as expected', () => {
  const { input, report } = expectation();
  assert.equal(run(input), report);
  note('Node', measure());
});

test.run();
