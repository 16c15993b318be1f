// Lane `fuzz`: each parser of native/fuzz/ fed by libFuzzer for a bounded time, under AddressSanitizer and
// UndefinedBehaviorSanitizer, from the seeds in native/fuzz/corpus/<parser>/. A crash, a hang or a leak fails the lane and
// leaves the input in build/fuzz/found/<parser>-*; `build/fuzz/fuzz-<parser> FILE` repeats it. MOONCAKE_FUZZ_SECONDS: per
// parser, 20 unless set.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative, lacking } from './native.mjs';
import { root } from './steps.mjs';

const HANG_SECONDS = 10;

/** Runs one fuzzer; how many inputs it tried, and whether all was well. */
function run(folder, name, seconds) {
  const corpus = join(folder, 'corpus', name);
  const found = join(folder, 'found');
  const seeds = join(root, 'native', 'fuzz', 'corpus', name);
  for (const path of [corpus, found]) mkdirSync(path, { recursive: true });
  const args = [
    `-max_total_time=${seconds}`,
    `-timeout=${HANG_SECONDS}`,
    '-rss_limit_mb=2048',
    '-print_final_stats=1',
    `-artifact_prefix=${join(found, `${name}-`)}`,
    corpus,
    ...(existsSync(seeds) ? [seeds] : []),
  ];
  const { status, signal, stderr } = spawnSync(join(folder, `fuzz-${name}`), args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    timeout: (seconds + 60) * 1000,
  });
  const executions = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(stderr)?.[1] ?? 0);
  return { good: status === 0 && executions > 0, executions, output: `${stderr}  ended with ${signal ?? status}\n` };
}

export default async function fuzz() {
  const lack = await lacking({ packages: ['clang', 'libclang-rt-14-dev'], commands: ['clang++'] });
  if (lack) return lack;
  const folder = join(root, 'build', 'fuzz');
  await buildNative('fuzzers', folder, {
    compiler: 'clang++',
    options: ['-DMOONCAKE_ADDON=OFF', '-DMOONCAKE_FUZZ=ON', '-DMOONCAKE_SANITIZE=address,undefined'],
  });
  const seconds = Number(process.env.MOONCAKE_FUZZ_SECONDS ?? 20);
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const file of readdirSync(join(root, 'native', 'fuzz')).filter((name) => name.endsWith('.cpp'))) {
    const name = file.replace(/\.cpp$/, '');
    const { good, executions, output } = run(folder, name, seconds);
    process.stderr.write(`  fuzz ${name}: ${good ? 'nothing found' : 'FAILED'} in ${executions} executions\n`);
    if (!good) process.stderr.write(output);
    total[good ? 'passed' : 'failed']++;
  }
  if (total.passed + total.failed === 0) throw new Error('native/fuzz has no fuzzer');
  return total;
}
