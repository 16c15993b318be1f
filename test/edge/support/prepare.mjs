// Prepares the edge lane. bun, deno and workerd come with the lane's packages (../runtimes/package.json); Chromium is the
// system's. CI runs as root on a bare Debian machine, so there it is installed from the distribution; elsewhere nothing is
// touched and the tests that need it say how to get it.
import { spawnSync } from 'node:child_process';
import { step } from '../../../scripts/steps.mjs';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];
const onPath = (name) => spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout?.trim() ?? '';
const find = () => process.env.MOONCAKE_CHROMIUM || NAMES.map(onPath).find(Boolean) || '';

export default async function prepare() {
  const debian = process.platform === 'linux' && onPath('apt-get') !== '';
  if (!find() && process.env.CI === 'true' && process.getuid?.() === 0 && debian) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    await step('installing Chromium: package lists', 'apt-get', ['update', '-qq'], { env });
    await step('installing Chromium', 'apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'chromium'], {
      env,
    });
  }
  return { env: { MOONCAKE_CHROMIUM: find() } };
}
