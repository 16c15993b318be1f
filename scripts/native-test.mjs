// Lane `native`: the test binary of native/, as users' machines build it.
import { join } from 'node:path';
import { buildHere, lacking } from './native.mjs';
import { runBinary } from './native-tools.mjs';

export default async function test() {
  const lack = await lacking({});
  if (lack) return lack;
  const folder = await buildHere('native tests', 'mooncake-test');
  return runBinary('mooncake-test', join(folder, 'mooncake-test'));
}
