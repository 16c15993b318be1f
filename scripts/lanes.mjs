// The test lanes. A lane packs the package, installs the tarball in an empty folder as a user would, compiles its test
// files there and runs each in a process of its own, so no test can reach the source tree.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { watchStalls } from './stalls.mjs';
import { root, step } from './steps.mjs';

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const FILE_TIMEOUT = 10 * 60_000;

/**
 * ci: part of CI's list. check: an npm command that passes or fails as a whole, instead of test files.
 * run: a module whose default export runs the lane by itself and returns its counts, or {skip, enable}.
 * folders: where its test files are. files: which of them, by default all. dependencies: dev dependencies of the project that its tests import.
 * parallel: test files at the same time, 2 by default.
 * extra: a folder with a package.json of the lane's own (heavy peers and run-times). install: more npm install options.
 * setup: a module whose default export prepares the lane and returns {env}, or {skip, enable} where it cannot run.
 */
export const LANES = {
  lint: { ci: true, check: ['run', 'lint'] },
  unit: {
    ci: true,
    setup: 'scripts/cuda-double.mjs',
    folders: [
      'test/cli',
      'test/connector',
      'test/core',
      'test/engine',
      'test/master',
      'test/native',
      'test/proxy',
      'test/replay',
      'test/rpc',
      'test/service',
      'test/store',
      'test/transfer',
      'test/workers',
    ],
    dependencies: ['uvu', 'fast-check', 'hash-wasm', 'cbor-x', 'msgpackr'],
  },
  docs: { ci: true, run: 'scripts/parity.mjs' },
  edge: {
    ci: true,
    folders: ['test/edge', 'examples/edge-worker/src'],
    dependencies: ['uvu', 'fast-check', 'esbuild'],
    extra: 'test/edge/runtimes',
    install: ['--ignore-scripts'],
    setup: 'test/edge/support/prepare.mjs',
  },
  faults: {
    ci: true,
    setup: 'test/faults/setup.mjs',
    folders: ['test/faults'],
    dependencies: ['uvu', 'fast-check'],
  },
  fuzz: { ci: true, run: 'scripts/native-fuzz.mjs' },
  hashes: {
    ci: true,
    setup: 'test/vllm/setup-hashes.mjs',
    folders: ['test/vllm'],
    files: ['test/vllm/hash.test.ts'],
    dependencies: ['uvu'],
  },
  interop: { ci: true, setup: 'test/interop/setup.mjs', folders: ['test/interop'], dependencies: ['uvu'], parallel: 1 },
  native: { ci: true, run: 'scripts/native-test.mjs' },
  rdma: { ci: true, setup: 'test/rdma/setup.mjs', folders: ['test/rdma'], dependencies: ['uvu'], parallel: 1 },
  release: { ci: true, run: 'scripts/native-release.mjs' },
  sanitize: { ci: true, run: 'scripts/native-sanitize.mjs' },
  vllm: { ci: false, setup: 'test/vllm/setup.mjs', folders: ['test/vllm'], dependencies: ['uvu'], parallel: 1 },
};

function testFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join(folder, name))
    .sort();
}

/** Packs the package; the tarball's path and the SHA-256 of its contents. */
async function pack() {
  const folder = join(root, 'build', 'pack');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  await step('packing the package (npm pack)', npm, ['pack', '--silent', '--pack-destination', folder]);
  const tarball = join(folder, readdirSync(folder)[0]);
  return { tarball, digest: createHash('sha256').update(readFileSync(tarball)).digest('hex') };
}

let packed;

/** An empty folder with the tarball and the lane's peers installed; kept as long as none of them changes. */
async function installLane(name, lane) {
  packed ??= await pack();
  const folder = join(root, 'build', 'lanes', name);
  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const dependencies = { 'mooncake-ts': `file:${relative(folder, packed.tarball)}` };
  for (const peer of lane.dependencies ?? []) dependencies[peer] = own.devDependencies[peer] ?? own.dependencies[peer];
  if (lane.extra) {
    Object.assign(dependencies, JSON.parse(readFileSync(join(root, lane.extra, 'package.json'), 'utf8')).dependencies);
  }
  const wanted = JSON.stringify({ digest: packed.digest, dependencies });
  const stamp = join(folder, '.installed');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      join(folder, 'package.json'),
      JSON.stringify({ private: true, type: 'module', dependencies }, null, 2),
    );
    await step(
      `lane ${name}: installing the tarball in an empty folder`,
      npm,
      ['install', '--prefer-offline', '--no-package-lock', '--no-progress', ...(lane.install ?? [])],
      { cwd: folder },
    );
    writeFileSync(stamp, wanted);
  }
  return folder;
}

/** Compiles the lane's test files (and what they share) into `folder`, without bundling. */
async function compileTests(folder, lane) {
  const { build } = await import('esbuild');
  rmSync(join(folder, 'test'), { recursive: true, force: true });
  const files =
    lane.files?.map((name) => join(root, name)) ?? lane.folders.flatMap((name) => testFiles(join(root, name)));
  const shared = ['test/support', ...lane.folders].flatMap((name) =>
    existsSync(join(root, name))
      ? readdirSync(join(root, name), { recursive: true })
          .filter((file) => file.endsWith('.ts'))
          .map((file) => join(root, name, file))
      : [],
  );
  await build({
    entryPoints: [...new Set(shared)],
    outbase: root,
    outdir: folder,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    sourcemap: 'inline',
    logLevel: 'error',
  });
  for (const name of ['test/vectors', ...lane.folders, 'test/support']) {
    const from = join(root, name);
    if (!existsSync(from)) continue;
    cpSync(from, join(folder, name), {
      recursive: true,
      filter: (source) => statSync(source).isDirectory() || !source.endsWith('.ts'),
    });
  }
  return files.map((file) => join(folder, relative(root, file)).replace(/\.ts$/, '.js'));
}

/** Runs one test file; its counts, from the summary that uvu prints, and what it said of skipped tests. */
function runFile(file, cwd, env) {
  return new Promise((resolve) => {
    const started = Date.now();
    const stalls = watchStalls();
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      cwd,
      env: { ...process.env, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: FILE_TIMEOUT,
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    child.on('close', (code, signal) => {
      const count = (word) => Number(new RegExp(`^\\s*${word}:\\s+(\\d+)`, 'm').exec(output)?.[1] ?? Number.NaN);
      const [total, passed, skipped] = [count('Total'), count('Passed'), count('Skipped')];
      // uvu counts every run file once; no summary means that the file died or hung before its end.
      const finished = Number.isFinite(total) && (code === 0 || passed < total);
      const result = finished ? { passed, failed: total - passed, skipped } : { passed: 0, failed: 1, skipped: 0 };
      resolve({
        ...result,
        output,
        reason: finished ? '' : `ended with ${signal ?? code} before its summary`,
        ms: Date.now() - started,
        stalledMs: stalls.stop(),
      });
    });
  });
}

/** What a reader of the log wants to see of a file: its counts, what it skipped or noted, and all of it where it failed. */
function report(label, result) {
  process.stderr.write(
    `  ${label}: ${result.passed} passed, ${result.failed} failed, ${result.skipped} skipped, ${(result.ms / 1000).toFixed(1)} s\n`,
  );
  for (const line of result.output.split('\n'))
    if (/^\s*(SKIP|NOTE) /.test(line)) process.stderr.write(`  ${line.trim()}\n`);
  if (result.failed > 0)
    process.stderr.write(`${result.output}${result.reason ? `  ${label} ${result.reason}\n` : ''}`);
}

/** The failed tests of a file with the first line of each message: a long log's end is often all that is kept of it. */
function failuresOf(label, result) {
  const failures = [...result.output.matchAll(/^\s*FAIL\s+(.*)\n\s*(.*)$/gm)].map(
    ([, name, message]) => `${label}: ${name}: ${message}`,
  );
  return failures.length > 0 ? failures : [`${label}: ${result.reason || 'failed'}`];
}

/** Runs a lane whole; its counts and the names of the tests that failed. */
export async function runLane(name) {
  const lane = LANES[name];
  process.stderr.write(`lane ${name}\n`);
  if (lane.check) {
    const passed = await step(`npm ${lane.check.join(' ')}`, npm, lane.check).then(
      () => true,
      () => false,
    );
    return { passed: passed ? 1 : 0, failed: passed ? 0 : 1, skipped: 0, failures: passed ? [] : [`lane ${name}`] };
  }
  const module = lane.run ?? lane.setup;
  const prepared = module ? await (await import(join(root, module))).default() : undefined;
  if (prepared?.skip) {
    process.stderr.write(`  SKIP lane ${name}: ${prepared.skip}; to enable: ${prepared.enable}\n`);
    return { passed: 0, failed: 0, skipped: 1, failures: [] };
  }
  if (lane.run)
    return { failures: prepared.failed > 0 ? [`lane ${name}: ${prepared.failed} failed`] : [], ...prepared };
  const env = prepared?.env ?? {};
  const folder = await installLane(name, lane);
  const files = await compileTests(folder, lane);
  const total = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const queue = [...files];
  const worker = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const label = relative(folder, file).replace(/\.js$/, '.ts');
      let result = await runFile(file, dirname(file), env);
      if (result.failed > 0 && result.stalledMs > 0) {
        report(label, result);
        process.stderr.write(
          `  NOTE ${label} runs once more: the machine stood still for ${(result.stalledMs / 1000).toFixed(1)} s while it ran\n`,
        );
        result = await runFile(file, dirname(file), env);
      }
      for (const key of ['passed', 'failed', 'skipped']) total[key] += result[key];
      report(label, result);
      if (result.failed > 0) total.failures.push(...failuresOf(label, result));
    }
  };
  await Promise.all(Array.from({ length: lane.parallel ?? 2 }, worker));
  return total;
}
