/**
 * A simulated GPU driver in place of the machine's (native/test/cuda/library.cpp), for this process and those that it starts. Its
 * memory cannot be touched by address, here or elsewhere; two GPUs, "cuda:0" and "cuda:1". To be imported before an engine
 * looks for GPUs.
 */
import { skip } from './skip.js';

const library = process.env.MOONCAKE_TEST_CUDA;
if (library) process.env.MOONCAKE_CUDA_LIBRARY = library;

type Test = ((name: string, body: () => Promise<void>) => void) & { skip(name: string, body: () => void): void };

/** A test that needs it. */
export function gpuTest(test: Test, name: string, body: () => Promise<void>): void {
  if (library) test(name, body);
  else skip(test, name, 'the simulated GPU driver is not built', 'apt-get install cmake ninja-build g++');
}
