// Brings a checkout into working order with Node built-ins alone: installs the locked dependencies and builds dist/ and the
// accelerator where any of them is missing or older than its sources, says what it does, and returns at once when there is
// nothing to do.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setupAddon } from './native.mjs';
import { fingerprint, root, run, step } from './steps.mjs';

const NODE_MAJOR = 20;

function readStamp(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const SOURCES = [
  'assembly',
  'src',
  'workers',
  'examples/reference-engine',
  'tsconfig.json',
  'tsconfig.portable.json',
  'scripts/build.mjs',
  'scripts/gen-sha256.mjs',
];

/** Installs and builds what is missing. True when something was done. */
export async function setup() {
  if (Number(process.versions.node.split('.')[0]) < NODE_MAJOR) {
    throw new Error(`mooncake-ts needs Node ${NODE_MAJOR} or later; this is ${process.version}`);
  }
  let worked = false;
  const installed = join(root, 'node_modules', '.mooncake-setup');
  const locked = fingerprint(root, ['package.json', 'package-lock.json']);
  if (readStamp(installed) !== locked) {
    // Not `npm ci`: it refuses a lock that lacks another platform's optional binaries. The locked versions hold here too.
    await step('installing dependencies (npm install)', npm, [
      'install',
      '--no-save',
      '--prefer-offline',
      '--no-progress',
    ]);
    writeFileSync(installed, locked);
    worked = true;
  }
  const built = join(root, 'dist', '.sources');
  const sources = fingerprint(root, [...SOURCES, 'package-lock.json']);
  if (readStamp(built) !== sources) {
    await step('building the WASM core and the package', process.execPath, ['scripts/build.mjs', '--clean']);
    mkdirSync(dirname(built), { recursive: true });
    writeFileSync(built, sources);
    worked = true;
  }
  return (await setupAddon()) || worked;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await run(async () => {
    if (!(await setup())) process.stderr.write('  nothing to do: dependencies installed, build up to date\n');
  });
}
