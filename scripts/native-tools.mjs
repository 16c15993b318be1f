// Tools that the native lanes need. CI runs as root on a bare Debian machine, so there they are installed from the
// distribution; elsewhere nothing is touched, and a lane that misses one is skipped with the command that installs it.
import { spawn, spawnSync } from 'node:child_process';
import { step } from './steps.mjs';

const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
let listed = false;

/** The path of a command, or ''. */
export function find(command) {
  return spawnSync('sh', ['-c', `command -v ${command}`], { encoding: 'utf8' }).stdout?.trim() ?? '';
}

function installed(name) {
  return /^Status: install ok installed$/m.test(spawnSync('dpkg', ['-s', name], { encoding: 'utf8' }).stdout ?? '');
}

/** In CI on Debian, installs those of the packages that are not there. Elsewhere does nothing. */
export async function installInCi(...packages) {
  if (process.env.CI !== 'true' || process.getuid?.() !== 0 || !find('apt-get')) return;
  const absent = packages.filter((name) => !installed(name));
  if (absent.length === 0) return;
  if (!listed) await step('package lists (apt-get update)', 'apt-get', ['update', '-qq'], { env });
  listed = true;
  await step(
    `installing ${absent.join(', ')}`,
    'apt-get',
    ['install', '-y', '-qq', '--no-install-recommends', ...absent],
    { env },
  );
}

/**
 * Runs a test binary; its counts, from the line "N passed, N failed" that it prints last. Its output is shown where
 * something failed, and where it printed something else after the tests: a sanitizer's report, a crash.
 */
export function runBinary(label, command, args = [], { env = {}, timeout = 5 * 60_000 } = {}) {
  const started = Date.now();
  return new Promise((resolve) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], timeout });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    const finish = (how) => {
      const [, passed, failed] = /^(\d+) passed, (\d+) failed$/m.exec(output) ?? [];
      const good = how === 0 && Number(passed) > 0 && failed === '0';
      const counts = { passed: Number(passed ?? 0), failed: Math.max(Number(failed ?? 0), good ? 0 : 1), skipped: 0 };
      const seconds = ((Date.now() - started) / 1000).toFixed(1);
      process.stderr.write(`  ${label}: ${counts.passed} passed, ${counts.failed} failed, ${seconds} s\n`);
      // What a test binary leaves out says why; it is no test of this machine, so it is not among the counts.
      for (const line of good ? (output.match(/^ *SKIP .*$/gm) ?? []) : []) process.stderr.write(`  ${line.trim()}\n`);
      if (!good) process.stderr.write(`${output}  ${label} ended with ${how}\n`);
      resolve(counts);
    };
    child.on('error', (error) => finish(error.message));
    child.on('close', (code, signal) => finish(signal ?? code));
  });
}

/** Sums of counts. */
export function sum(...counts) {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const one of counts) for (const key of Object.keys(total)) total[key] += one[key];
  return total;
}
