// Builds the native accelerator with CMake and Ninja where a compiler is there; says why where it is not. The package
// works without it. Folders below build/ are kept, so that a build compiles what has changed and nothing else.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { find, installInCi } from './native-tools.mjs';
import { fingerprint, root, step } from './steps.mjs';

const require = createRequire(join(root, 'package.json'));
const SOURCES = ['native', 'package.json', 'package-lock.json', 'scripts/native.mjs'];
const cxx = () => process.env.CXX || 'c++';

/** The first line that a tool prints about its version; undefined where there is no such tool. */
function version(command) {
  const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0] : undefined;
}

/** What builds: the versions, and the names of what is missing. */
function toolchain() {
  const tools = { cmake: version('cmake'), ninja: version('ninja'), 'a C++20 compiler': version(cxx()) };
  return { versions: JSON.stringify(tools), absent: Object.keys(tools).filter((name) => !tools[name]) };
}

/** What a native lane lacks on this machine, as {skip, enable}; undefined where it can run. In CI it is installed. */
export async function lacking({ packages = [], commands = [] }) {
  if (process.platform !== 'linux') return { skip: `this is ${process.platform}`, enable: 'run it on Linux' };
  await installInCi('cmake', 'ninja-build', 'g++', ...packages);
  const absent = [...toolchain().absent, ...commands.filter((name) => !find(name))];
  if (absent.length === 0) return undefined;
  const enable = `apt-get install ${['cmake', 'ninja-build', 'g++', ...packages].join(' ')}`;
  return { skip: `${absent.join(', ')} not found`, enable };
}

/** Include folders of the Node-API headers, as CMake arguments. */
export function headerArguments() {
  return [
    `-DNODE_ADDON_API_DIR=${dirname(require.resolve('node-addon-api/package.json'))}`,
    `-DNODE_API_HEADERS_DIR=${join(dirname(require.resolve('node-api-headers/package.json')), 'include')}`,
  ];
}

/**
 * Configures native/ into `folder`, which is begun anew where options or tools are not those it was made with, and builds
 * the targets, or all of them.
 */
export async function buildNative(label, folder, { options, targets = ['all'], compiler = cxx(), env = process.env }) {
  const made = JSON.stringify({ folder, options, compiler: version(compiler), tools: toolchain().versions });
  const stamp = join(folder, '.made-with');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== made) rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const configure = ['-S', join(root, 'native'), '-B', folder, '-G', 'Ninja', `-DCMAKE_CXX_COMPILER=${compiler}`];
  await step(`${label}: configuring`, 'cmake', [...configure, ...options], { env });
  writeFileSync(stamp, made);
  const jobs = String(availableParallelism());
  await step(`${label}: compiling`, 'cmake', ['--build', folder, '--parallel', jobs, '--target', ...targets], { env });
}

/** build/native, which has the addon and the test binary of this machine; the folder. */
export async function buildHere(label, target) {
  const folder = join(root, 'build', 'native');
  // A warning of a compiler that we do not know must not cost a user the accelerator.
  const strict = `-DMOONCAKE_WERROR=${process.env.CI === 'true' ? 'ON' : 'OFF'}`;
  await buildNative(label, folder, {
    options: [strict, '-DMOONCAKE_TESTS=ON', ...headerArguments()],
    targets: [target],
  });
  return folder;
}

/** Puts a built addon where the package looks for it. */
function publish(folder, target) {
  mkdirSync(target, { recursive: true });
  // A process may have the old file mapped: replace it, never write into it.
  copyFileSync(join(folder, 'mooncake.node'), join(target, 'mooncake.node.new'));
  renameSync(join(target, 'mooncake.node.new'), join(target, 'mooncake.node'));
}

/**
 * Builds dist/native/mooncake.node where its sources or its tools have changed. Where it cannot be built, says so once,
 * and the package does without; in CI that is an error. True when something was done.
 */
export async function setupAddon() {
  const ci = process.env.CI === 'true';
  const target = join(root, 'dist', 'native');
  const stamp = join(target, '.sources');
  const say = (text) => process.stderr.write(`  the accelerator is not built: ${text}; TypeScript takes over\n`);
  if (process.platform === 'linux') await installInCi('cmake', 'ninja-build', 'g++');
  const { versions, absent } = toolchain();
  const wanted = `${fingerprint(root, SOURCES)} ${versions}`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return false;
  rmSync(target, { recursive: true, force: true });
  if (process.platform !== 'linux') {
    say(`it is for Linux, this is ${process.platform}`);
  } else if (absent.length > 0) {
    if (ci) throw new Error(`CI builds the accelerator: ${absent.join(', ')} not found`);
    say(`${absent.join(', ')} not found`);
  } else {
    try {
      publish(await buildHere('the accelerator', 'addon'), target);
    } catch (error) {
      if (ci) throw error;
      say(`${error.message} (its output is above)`);
    }
  }
  mkdirSync(target, { recursive: true });
  writeFileSync(stamp, wanted);
  return true;
}
