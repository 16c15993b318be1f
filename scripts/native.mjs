// Builds the native accelerator with CMake and Ninja where a compiler is there; says why where it is not. The package
// works without it.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { step } from './setup.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(join(root, 'package.json'));

function works(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Why the addon cannot be built here; undefined where it can. */
export function missing() {
  if (process.platform !== 'linux') return `the accelerator is for Linux, this is ${process.platform}`;
  const tools = { cmake: ['cmake'], ninja: ['ninja'], 'a C++20 compiler': [process.env.CXX ?? 'c++'] };
  const absent = Object.keys(tools).filter((name) => !tools[name].some(works));
  return absent.length > 0 ? `${absent.join(', ')} not found` : undefined;
}

/** Include folders of the Node-API headers, as CMake arguments. */
export function headerArguments() {
  return [
    `-DNODE_ADDON_API_DIR=${dirname(require.resolve('node-addon-api/package.json'))}`,
    `-DNODE_API_HEADERS_DIR=${join(dirname(require.resolve('node-api-headers/package.json')), 'include')}`,
  ];
}

/** Configures and builds native/ into `folder`. */
export async function buildNative(label, folder, options, env = process.env) {
  mkdirSync(folder, { recursive: true });
  await step(`${label}: configuring`, 'cmake', ['-S', join(root, 'native'), '-B', folder, '-G', 'Ninja', ...options], {
    env,
  });
  await step(`${label}: compiling`, 'cmake', ['--build', folder], { env });
}

/** Builds dist/native/mooncake.node. The reason why not, where it cannot be built. */
export async function buildAddon() {
  const why = missing();
  if (why) return why;
  const folder = join(root, 'build', 'native');
  await buildNative('the accelerator', folder, headerArguments());
  const target = join(root, 'dist', 'native');
  mkdirSync(target, { recursive: true });
  // A process may have the old file mapped: replace it, never write into it.
  copyFileSync(join(folder, 'mooncake.node'), join(target, 'mooncake.node.new'));
  renameSync(join(target, 'mooncake.node.new'), join(target, 'mooncake.node'));
  return existsSync(join(target, 'mooncake.node')) ? undefined : 'the build left no mooncake.node';
}
