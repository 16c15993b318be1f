// Prepares Python with the stock transfer engine. MOONCAKE_PYTHON names a Python that has it; without it, an environment is
// made below build/ with the wheel from the package registry. Half a minute, the second time none.
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installInCi } from '../../scripts/native-tools.mjs';
import { findPython, PIP } from '../../scripts/python.mjs';
import { root, step } from '../../scripts/steps.mjs';

const WHEEL = 'mooncake-transfer-engine-non-cuda==0.3.13.post1';
/** Libraries that the wheel expects of the system. */
const LIBRARIES = ['libibverbs1', 'libnuma1', 'libcurl4'];
/** Of metadata (backends.ts): their tests are skipped where they are not there. */
const SERVERS = ['etcd-server', 'redis-server', 'openssl'];

/** Why its engine cannot be loaded; undefined where it can. */
function broken(python) {
  try {
    execFileSync(python, ['-c', 'import mooncake.engine'], { stdio: 'pipe', timeout: 60_000 });
    return undefined;
  } catch (error) {
    return String(error.stderr ?? error.message)
      .trim()
      .split('\n')
      .at(-1);
  }
}

/** {env} for the lane's tests, or {skip, enable}. */
export default async function prepare() {
  const enable = `apt-get install ${LIBRARIES.join(' ')}, or a Python with ${WHEEL} in MOONCAKE_PYTHON`;
  await installInCi(...LIBRARIES, ...SERVERS);
  let python = process.env.MOONCAKE_PYTHON;
  if (!python) {
    const folder = join(root, 'build', 'interop');
    python = join(folder, 'bin', 'python');
    // Said when it is whole. It cannot be made elsewhere and moved here: the scripts in its bin/ hold its path.
    const whole = join(folder, WHEEL);
    if (!existsSync(whole)) {
      const base = findPython();
      if (!base) return { skip: 'no Python 3.10 or later with venv', enable };
      rmSync(folder, { recursive: true, force: true });
      try {
        await step('lane interop: making a Python environment', base, ['-m', 'venv', folder]);
        await step(`lane interop: installing ${WHEEL}`, python, [...PIP, 'install', '--only-binary=:all:', WHEEL]);
      } catch (error) {
        return { skip: `the package registry gave no ${WHEEL} (${error.message})`, enable };
      }
      writeFileSync(whole, '');
    }
  }
  const why = broken(python);
  return why ? { skip: `the stock engine does not load: ${why}`, enable } : { env: { MOONCAKE_PYTHON: python } };
}
