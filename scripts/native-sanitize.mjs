// Lane `sanitize`: the test binary of native/ under AddressSanitizer with UndefinedBehaviorSanitizer, and under
// ThreadSanitizer. Any report fails the lane: errors end the binary, leaks and races change its exit code.
import { join } from 'node:path';
import { buildNative, lacking } from './native.mjs';
import { find, runBinary, sum } from './native-tools.mjs';
import { root } from './steps.mjs';

const RUNS = {
  address: {
    sanitizers: 'address,undefined',
    env: {
      ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1',
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
  },
  thread: { sanitizers: 'thread', env: { TSAN_OPTIONS: 'second_deadlock_stack=1:halt_on_error=1' } },
};

export default async function sanitize() {
  const lack = await lacking({ packages: ['clang', 'libclang-rt-14-dev'] });
  if (lack) return lack;
  // GCC has the same sanitizers; clang's reports say more.
  const compiler = process.env.CXX || (find('clang++') ? 'clang++' : 'c++');
  const results = [];
  for (const [name, { sanitizers, env }] of Object.entries(RUNS)) {
    const folder = join(root, 'build', 'sanitize', name);
    await buildNative(`native tests under ${sanitizers}`, folder, {
      compiler,
      options: ['-DMOONCAKE_ADDON=OFF', '-DMOONCAKE_TESTS=ON', `-DMOONCAKE_SANITIZE=${sanitizers}`],
    });
    results.push(await runBinary(`mooncake-test under ${sanitizers}`, join(folder, 'mooncake-test'), [], { env }));
  }
  return sum(...results);
}
