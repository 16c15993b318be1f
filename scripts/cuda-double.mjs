// The simulated GPU driver (native/test/cuda/library.cpp) for tests of what is above the accelerator: MOONCAKE_TEST_CUDA names it,
// test/support/gpu.ts puts it in the driver's place. Where there is no compiler the tests that need it are skipped.
import { join } from 'node:path';
import { buildHere, lacking } from './native.mjs';

export default async function setup() {
  if (await lacking({})) return {};
  const folder = await buildHere('the simulated GPU driver', 'cuda-double');
  return { env: { MOONCAKE_TEST_CUDA: join(folder, 'libcuda-double.so') } };
}
