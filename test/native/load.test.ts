// Where the accelerator is looked for, and what is said where it is not found: seen through `mooncake-ts doctor`, in copies
// of the installed package that are damaged in one way each.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';

const installed = dirname(createRequire(import.meta.url).resolve('mooncake-ts/package.json'));
/** The folder of the packages that it depends on. */
const dependencies = dirname(dirname(createRequire(join(installed, 'dist/src/index.js')).resolve('commander')));
const platform = `linux-${process.arch}`;

interface Loaded {
  path?: string;
  version?: string;
  tried: { path: string; why: string }[];
}

/** What the package in `folder` says of its accelerator. */
function accelerator(folder: string, env: Record<string, string> = {}): Loaded {
  const main = join(folder, 'dist/src/cli/main.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'doctor', '--json'], {
    encoding: 'utf8',
    env: { ...process.env, MOONCAKE_NATIVE: '', ...env },
    timeout: 60_000,
  });
  assert.is(status, 0, stderr);
  return JSON.parse(stdout).accelerator;
}

const copies: string[] = [];

/** A copy of the installed package, with the packages beside it. */
function copy(): { folder: string; packages: string } {
  const packages = join(mkdtempSync(join(tmpdir(), 'load-')), 'node_modules');
  copies.push(dirname(packages));
  const folder = join(packages, 'mooncake-ts');
  for (const name of ['package.json', 'dist']) cpSync(join(installed, name), join(folder, name), { recursive: true });
  for (const name of readdirSync(dependencies)) {
    if (name !== 'mooncake-ts' && !name.startsWith('.')) symlinkSync(join(dependencies, name), join(packages, name));
  }
  return { folder, packages };
}

const built = (folder: string) => join(folder, 'dist/native/mooncake.node');
const test = suite('load');

test.after(() => {
  for (const folder of copies) rmSync(folder, { recursive: true });
});

test('MOONCAKE_NATIVE=off: nothing is tried', () => {
  const { path, tried } = accelerator(installed, { MOONCAKE_NATIVE: 'off' });
  assert.is(path, undefined);
  assert.equal(tried, [{ path: 'MOONCAKE_NATIVE', why: 'switched off (MOONCAKE_NATIVE=off)' }]);
});

if (process.platform !== 'linux') {
  skip(
    test,
    'where the addon is found',
    `the accelerator is for Linux, this is ${process.platform}`,
    'run it on Linux',
  );
} else {
  test('the path in MOONCAKE_NATIVE, and no other', () => {
    const { path, tried } = accelerator(installed, { MOONCAKE_NATIVE: '/nowhere/mooncake.node' });
    assert.is(path, undefined);
    assert.is(tried.length, 1);
    assert.is(tried[0].path, '/nowhere/mooncake.node');
    assert.match(tried[0].why, /Cannot find module|no such file/i);
  });

  test('a file that is no library', () => {
    const { folder } = copy();
    mkdirSync(dirname(built(folder)), { recursive: true });
    writeFileSync(built(folder), 'not a library, but long enough to have a header of an ELF file'.repeat(4));
    const { path, tried } = accelerator(folder);
    assert.is(path, undefined);
    assert.is(tried.at(-1)?.path, built(folder));
    assert.match(tried.at(-1)?.why ?? '', 'invalid ELF header');
  });

  test('nothing was built', () => {
    const { folder } = copy();
    rmSync(dirname(built(folder)), { recursive: true });
    assert.equal(accelerator(folder), {
      tried: [
        { path: `@mooncake-ts/${platform}`, why: 'not installed' },
        { path: built(folder), why: 'not built' },
      ],
    });
  });

  if (!readdirSync(join(installed, 'dist')).includes('native') || accelerator(installed).path === undefined) {
    skip(test, 'the addon', 'it was not built', 'apt-get install cmake ninja-build g++ && npm run build');
  } else {
    test('what was built is loaded', () => {
      const { version } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
      const { path, version: found } = accelerator(installed);
      assert.is(path, built(installed));
      assert.is(found, version);
    });

    test('the platform package comes first; one that is damaged is said and passed over', () => {
      const { folder, packages } = copy();
      const addon = join(packages, '@mooncake-ts', platform, 'mooncake.node');
      mkdirSync(dirname(addon), { recursive: true });
      cpSync(built(folder), addon);
      assert.equal(accelerator(folder).path, addon);
      writeFileSync(addon, 'damaged');
      const { path, tried } = accelerator(folder);
      assert.is(path, built(folder));
      assert.equal(
        tried.map(({ path }) => path),
        [addon],
      );
    });

    test('an addon of another version is refused', () => {
      const { folder } = copy();
      const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, version: '99.0.0' }));
      const { path, tried } = accelerator(folder);
      assert.is(path, undefined);
      assert.is(tried.at(-1)?.why, `it is of version ${manifest.version}, this package is 99.0.0`);
    });

    test('an addon with another interface is refused', () => {
      const { folder } = copy();
      const file = join(folder, 'dist/src/native/addon.js');
      const text = readFileSync(file, 'utf8');
      const changed = text.replace(/INTERFACE = \d+/, 'INTERFACE = 999');
      assert.is.not(changed, text);
      writeFileSync(file, changed);
      assert.match(accelerator(folder).tried.at(-1)?.why ?? '', 'this package needs 999: build it again');
    });
  }
}

test.run();
