// Tools that the native lanes need. CI runs as root on a bare Debian machine, so there they are installed from the
// distribution; elsewhere nothing is touched, and a lane that misses one is skipped with the command that installs it.
import { spawnSync } from 'node:child_process';
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
