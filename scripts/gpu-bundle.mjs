// `node scripts/gpu-bundle.mjs FOLDER`: what the tests and benchmarks of real GPUs need, for a machine that has a GPU, a Python
// with torch and nothing else: Node (xz), the built package with its dependencies, the tests and benchmarks compiled, and
// run.sh, which does all of it there in one call (scripts/gpu-run.sh). About 35 MB.

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setup } from './setup.mjs';
import { root, run } from './steps.mjs';

const ENTRIES = {
  'gpu.bench': 'bench/gpu.bench.ts',
  'gpu-store.bench': 'bench/gpu-store.bench.ts',
  'gpu.test': 'test/gpu/gpu.test.ts',
};

/** The names of what a package needs at run time, and of what that needs. */
function needs(name, found = new Set()) {
  const own = name === undefined ? root : join(root, 'node_modules', name);
  for (const each of Object.keys(JSON.parse(readFileSync(join(own, 'package.json'), 'utf8')).dependencies ?? {})) {
    if (found.has(each)) continue;
    found.add(each);
    needs(each, found);
  }
  return found;
}

await run(async () => {
  const folder = resolve(process.argv[2] ?? join(root, 'build', 'gpu'));
  await setup();
  const { build } = await import('esbuild');
  const modules = join(folder, 'node_modules');
  rmSync(modules, { recursive: true, force: true });
  mkdirSync(join(modules, 'mooncake-ts'), { recursive: true });
  cpSync(join(root, 'package.json'), join(modules, 'mooncake-ts', 'package.json'));
  const shipped = (path) => !/\.(d\.ts|map)$/.test(path);
  cpSync(join(root, 'dist'), join(modules, 'mooncake-ts', 'dist'), { recursive: true, filter: shipped });
  for (const name of needs()) {
    cpSync(join(root, 'node_modules', name), join(modules, name), { recursive: true, filter: shipped });
  }
  await build({
    entryPoints: Object.entries(ENTRIES).map(([out, path]) => ({ out, in: join(root, path) })),
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    external: ['mooncake-ts', 'mooncake-ts/*'],
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
  cpSync(join(root, 'test', 'gpu', 'owner.py'), join(folder, 'owner.py'));
  cpSync(join(root, 'scripts', 'gpu-run.sh'), join(folder, 'run.sh'));
  // The tests' own package: within a checkout they would find the checkout's in place of this one.
  writeFileSync(join(folder, 'package.json'), '{"private":true,"type":"module"}\n');
  const node = join(folder, 'node.xz');
  if (!existsSync(node)) {
    const { status } = spawnSync('xz', ['-6', '-c', process.execPath], {
      stdio: ['ignore', openSync(node, 'w'), 'inherit'],
    });
    if (status !== 0) throw new Error(`xz ended with ${status}`);
  }
  process.stdout.write(`${folder}\n`);
});
