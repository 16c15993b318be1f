/**
 * A simulated GPU driver in place of the machine's (native/test/cuda/library.cpp), for this process and those that it starts. Its
 * memory cannot be touched by address, here or elsewhere; two GPUs, "cuda:0" and "cuda:1". To be imported before an engine
 * looks for GPUs. MOONCAKE_TEST_CUDA=driver runs the tests on the machine's own GPU instead.
 */
import { skip } from './skip.js';

const named = process.env.MOONCAKE_TEST_CUDA;
const real = named === 'driver';
if (named && !real) process.env.MOONCAKE_CUDA_LIBRARY = named;

/** Another GPU than "cuda:0", where there is one. */
export const SECOND_GPU = real ? 'cuda:0' : 'cuda:1';

type Test = ((name: string, body: () => Promise<void>) => void) & { skip(name: string, body: () => void): void };

/** A test that needs a GPU; `simulated`: one whose memory is a test's to write. */
export function gpuTest(test: Test, name: string, body: () => Promise<void>, simulated = false): void {
  if (named && !(real && simulated)) test(name, body);
  else if (real) skip(test, name, 'it writes memory of the simulated GPU', 'leave MOONCAKE_TEST_CUDA to the lane');
  else skip(test, name, 'the simulated GPU driver is not built', 'apt-get install cmake ninja-build g++');
}

/** For a suite that several subjects run ("subject: scenario"): each scenario for the first that has it, on a simulated GPU. */
export function gpuScenarios(test: Test): (name: string, run: () => Promise<void>) => void {
  const seen = new Set<string>();
  return (name, run) => {
    const scenario = name.slice(name.indexOf(': ') + 2);
    if (!seen.has(scenario)) gpuTest(test, name, run, true);
    seen.add(scenario);
  };
}
