// `npm run bench -- NAME … [--json]`: sets up what is missing and runs bench/NAME.bench.ts against the built package.
// Without a name, every benchmark. Each prints a table, or with --json one line per result:
// {"name","value","unit","baseline","ratio"}; a peer measured in the same run is the baseline.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setup } from './setup.mjs';
import { root, run } from './steps.mjs';

const SUFFIX = '.bench.ts';

await run(async () => {
  await setup();
  const { build } = await import('esbuild');
  const words = process.argv.slice(2);
  const flags = words.filter((word) => word.startsWith('-'));
  const known = readdirSync(join(root, 'bench'))
    .filter((file) => file.endsWith(SUFFIX))
    .map((file) => file.slice(0, -SUFFIX.length));
  const names = words.filter((word) => !word.startsWith('-'));
  for (const name of names.length > 0 ? names : known) {
    const entry = join(root, 'bench', `${name}${SUFFIX}`);
    if (!existsSync(entry)) throw new Error(`no benchmark ${name}; there are ${known.join(', ')}`);
    const outfile = join(root, 'build', 'bench', `${name}.js`);
    await build({
      entryPoints: [entry],
      outfile,
      bundle: true,
      packages: 'external',
      format: 'esm',
      platform: 'node',
      target: 'node20',
      logLevel: 'error',
    });
    const child = spawn(process.execPath, ['--expose-gc', outfile, ...flags], { cwd: root, stdio: 'inherit' });
    const code = await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (status) => resolve(status ?? 1));
    });
    if (code !== 0) throw new Error(`benchmark ${name} ended with ${code}`);
  }
});
