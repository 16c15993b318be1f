/** The accelerator, what builds it, and what checking every byte costs with and without it. */
import { spawnSync } from 'node:child_process';
import type { LoadedAddon } from '../native/load.js';
import type { Verification } from '../native/verification.js';
import { count, type Finding } from './finding.js';

const BUILD = 'npm run build';
/** The rate that cores are counted for, bytes per second: what a NIC of 100 Gb/s brings. */
const RATE = 12.5e9;

const TOOLS = { cmake: 'cmake', ninja: 'ninja', compiler: process.env.CXX || 'c++' };

/** What the tools say of themselves in their first line; undefined where there is no such tool. */
export function buildTools(): Record<keyof typeof TOOLS, string | undefined> {
  const version = (command: string) => {
    const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8', timeout: 5000 });
    return status === 0 ? stdout.split('\n')[0] : undefined;
  };
  return { cmake: version(TOOLS.cmake), ninja: version(TOOLS.ninja), compiler: version(TOOLS.compiler) };
}

export function accelerator({ addon, path, tried }: LoadedAddon, tools: ReturnType<typeof buildTools>): Finding {
  const topic = 'accelerator';
  if (addon) return { topic, state: 'ok', found: `${path}, version ${addon.version}` };
  const absent = Object.entries(tools).flatMap(([name, version]) => (version ? [] : [name]));
  const install = 'apt-get install cmake ninja-build g++';
  return {
    topic,
    state: 'degraded',
    found: tried.map(({ path, why }) => `${path}: ${why}`).join('; '),
    means: 'TypeScript moves the bytes, over TCP alone: slower, and with more of the processor',
    mend:
      process.platform !== 'linux'
        ? 'none: the accelerator is for Linux'
        : process.env.MOONCAKE_NATIVE
          ? 'unset MOONCAKE_NATIVE'
          : absent.length > 0
            ? `${install}, then ${BUILD} in the checkout`
            : `${BUILD} in the checkout`,
  };
}

export function compiler(tools: ReturnType<typeof buildTools>, accelerated: boolean): Finding {
  const absent = Object.entries(tools).flatMap(([name, version]) => (version ? [] : [name]));
  const present = Object.entries(tools).map(([name, version = '']) =>
    /^\d/.test(version) ? `${name} ${version}` : version,
  );
  return {
    topic: 'build tools',
    state: 'note',
    found: absent.length > 0 ? `${absent.join(', ')} not found` : present.join(', '),
    ...(absent.length > 0 && !accelerated && { means: 'the accelerator cannot be built here' }),
  };
}

const gigabytes = (rate: number) => `${(rate / 1e9).toFixed(rate < 10e9 ? 1 : 0)} GB/s`;

/** Cores that `rate` takes, where one does `speed`. */
const cores = (speed: number) => (RATE / speed).toFixed(1);

export function verification(measured: Verification): Finding {
  const { instructions, checksum, copy, checkedCopy } = measured;
  const wasm = instructions === 'wasm';
  const slow = wasm || instructions === 'table';
  return {
    topic: 'verification',
    state: slow ? 'degraded' : 'ok',
    found: `${instructions}: checksum ${gigabytes(checksum)} in cache, copy ${gigabytes(copy)}, checked copy ${gigabytes(checkedCopy)}`,
    means: `the ${RATE / 1e9} GB/s of a 100 Gb/s NIC take ${cores(checkedCopy)} cores when every byte is checked (verify=full), ${cores(copy)} when none is`,
    ...(slow && {
      mend: wasm
        ? 'the accelerator sums faster; or verify=sampled:N'
        : 'this processor has no carry-less multiplication; verify=sampled:N checks every Nth block',
    }),
  };
}

export function node(): Finding {
  return { topic: 'Node', state: 'ok', found: `${process.version} on ${process.platform} ${process.arch}` };
}

export function processors(nodes: { cpus: number[]; memoryBytes: number }[], allowed: number): Finding {
  const total = nodes.reduce((sum, { cpus }) => sum + cpus.length, 0);
  return {
    topic: 'processors',
    state: 'note',
    found: `${count(total, 'core')}, ${count(nodes.length, 'NUMA node')}${allowed < total ? `, ${allowed} for this process` : ''}`,
  };
}
