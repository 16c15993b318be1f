// What the tests of faults use beside Node: ip (iproute2) for networks that fail, python3 to start processes that may do
// less. In CI they are installed where they are missing; elsewhere the tests that need them are skipped and say so.
import { execFileSync, spawnSync } from 'node:child_process';
import { step } from '../../scripts/steps.mjs';

const PACKAGES = { ip: 'iproute2', python3: 'python3' };

const works = (command) => spawnSync(command, ['-V'], { stdio: 'ignore' }).status === 0;

/** {} for the lane's tests. */
export default async function prepare() {
  const lacking = Object.keys(PACKAGES).filter((command) => !works(command));
  if (lacking.length > 0 && process.env.CI === 'true' && process.getuid?.() === 0) {
    const packages = lacking.map((command) => PACKAGES[command]);
    execFileSync('apt-get', ['update', '-q'], { stdio: 'ignore' });
    await step(`lane faults: installing ${packages.join(' and ')}`, 'apt-get', ['install', '-qy', ...packages]);
  }
  return {};
}
