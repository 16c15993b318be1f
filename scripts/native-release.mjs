// Lane `release`: the addon as it is shipped, cross-built by zig for glibc 2.31 on x86-64 and arm64, with what it asks of a
// machine checked in the file itself; its test binary run, for arm64 under qemu-user; and the platform packages
// (build/release/npm), which the loader prefers to a build of its own.
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readElf } from './elf.mjs';
import { buildNative, headerArguments, lacking } from './native.mjs';
import { find, runBinary, sum } from './native-tools.mjs';
import { root, step } from './steps.mjs';

const ZIG = 'ziglang==0.17.1';
const GLIBC = [2, 31];
/** glibc's own, and the loader. */
const LIBRARIES = /^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|ld-linux-[\w-]+\.so\.\d)$/;
const QEMU_ROOT = '/usr/aarch64-linux-gnu';
const TARGETS = {
  x64: { triple: 'x86_64-linux-gnu', run: [], env: {} },
  arm64: {
    triple: 'aarch64-linux-gnu',
    run: ['qemu-aarch64', '-L', QEMU_ROOT],
    // qemu-user passes on neither seccomp nor process_vm_*.
    env: { MOONCAKE_TEST_EMULATED: '1' },
  },
};

const folderOf = (arch) => join(root, 'build', 'release', arch);

/** The path of zig, from PyPI below build/; in CI it is fetched. Undefined where there is none. */
async function findZig() {
  const folder = join(root, 'build', 'zig');
  const zig = join(folder, 'ziglang', 'zig');
  if (!existsSync(zig) && process.env.CI === 'true') {
    await step(`fetching ${ZIG}`, 'python3', ['-m', 'pip', 'install', '-q', '--target', folder, ZIG]);
  }
  return existsSync(zig) ? zig : undefined;
}

/** A compiler, as CMake wants it: one command each. */
function wrappers(folder, zig, triple) {
  const write = (name, command) => {
    const path = join(folder, name);
    writeFileSync(path, `#!/bin/sh\nexec "${zig}" ${command} "$@"\n`);
    chmodSync(path, 0o755);
    return path;
  };
  mkdirSync(folder, { recursive: true });
  return { compiler: write('c++', `c++ -target ${triple}.${GLIBC.join('.')}`), ar: write('ar', 'ar') };
}

/** What is wrong with a file that is to be shipped; empty where nothing is. */
export function problems(file, arch, allowed) {
  const elf = readElf(readFileSync(file));
  const found = [];
  if (elf.machine !== arch) found.push(`it is for ${elf.machine}`);
  if (!elf.needed.includes('libc.so.6')) found.push('it does not need libc.so.6');
  for (const name of elf.needed.filter((library) => !LIBRARIES.test(library))) found.push(`it needs ${name}`);
  for (const version of elf.versions) {
    const [, major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(version) ?? [];
    if (major === undefined) found.push(`it needs symbols of ${version}`);
    else if (Number(major) > GLIBC[0] || Number(minor) > GLIBC[1]) found.push(`it needs ${version}`);
  }
  for (const { name, version, weak } of elf.undefined) {
    if (!version && !weak && !allowed.test(name)) found.push(`nothing defines ${name}`);
  }
  return found;
}

function check(arch) {
  const files = { 'mooncake.node': /^(napi|node_api)_/, 'mooncake-test': /^$/ };
  return Object.entries(files).map(([name, allowed]) => {
    const found = problems(join(folderOf(arch), name), arch, allowed);
    const verdict = found.length > 0 ? found.join('; ') : `glibc ${GLIBC.join('.')} and nothing else`;
    process.stderr.write(`  ${arch} ${name}: ${verdict}\n`);
    return { passed: found.length > 0 ? 0 : 1, failed: found.length > 0 ? 1 : 0, skipped: 0 };
  });
}

/** Whether this Node takes the shipped addon of its own architecture. */
function load(file) {
  const module = pathToFileURL(join(root, 'dist', 'src', 'native', 'load.js')).href;
  const program = `const { addon, tried } = (await import('${module}')).loadAddon(); console.log(JSON.stringify(addon ? [] : tried));`;
  const env = { ...process.env, MOONCAKE_NATIVE: file };
  const tried = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    env,
    encoding: 'utf8',
  }).trim();
  const good = tried === '[]';
  process.stderr.write(`  ${file}: ${good ? 'loaded' : tried}\n`);
  return { passed: good ? 1 : 0, failed: good ? 0 : 1, skipped: 0 };
}

/** The package @mooncake-ts/linux-ARCH, ready to be packed. */
function platformPackage(arch) {
  const { version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const folder = join(root, 'build', 'release', 'npm', `linux-${arch}`);
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(folderOf(arch), 'mooncake.node'), join(folder, 'mooncake.node'));
  copyFileSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  const manifest = {
    name: `@mooncake-ts/linux-${arch}`,
    version,
    description: `The native accelerator of mooncake-ts for Linux on ${arch}`,
    license,
    os: ['linux'],
    cpu: [arch],
    libc: ['glibc'],
    files: ['mooncake.node'],
  };
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

export default async function release() {
  const lack = await lacking({ packages: ['qemu-user', 'libc6-arm64-cross'], commands: ['qemu-aarch64'] });
  if (lack) return lack;
  const zig = (await findZig()) ?? find('zig');
  if (!zig) return { skip: 'no zig', enable: `python3 -m pip install --target build/zig ${ZIG}` };
  const results = [];
  for (const [arch, { triple, run, env: testEnv }] of Object.entries(TARGETS)) {
    const folder = folderOf(arch);
    const { compiler, ar } = wrappers(join(root, 'build', 'release', 'bin', arch), zig, triple);
    const options = [`-DCMAKE_AR=${ar}`, '-DCMAKE_RANLIB=/bin/true', '-DMOONCAKE_TESTS=ON', ...headerArguments()];
    const env = { ...process.env, ZIG_GLOBAL_CACHE_DIR: join(root, 'build', 'zig-cache') };
    await buildNative(`release for ${arch}`, folder, { compiler, options, env });
    results.push(...check(arch));
    const [command, ...args] = [...run, join(folder, 'mooncake-test')];
    if (arch === process.arch || arch === 'arm64')
      results.push(await runBinary(`mooncake-test on ${arch}`, command, args, { env: testEnv }));
    if (arch === process.arch) results.push(load(join(folder, 'mooncake.node')));
    platformPackage(arch);
  }
  return sum(...results);
}
