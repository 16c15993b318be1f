// What the README shows is what a reader gets: its commands and its program are run, their output compared.
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';

const manifest = createRequire(import.meta.url).resolve('mooncake-ts/package.json');
const readme = readFileSync(join(dirname(manifest), 'README.md'), 'utf8');

/** The fenced blocks of one language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\n((?:.*\n)*?)\`\`\``, 'gm'))].map(([, text]) => text);
}

test('the program prints what stands under it', () => {
  const [program] = blocks('js');
  const [printed] = blocks('text');
  const file = join(import.meta.dirname ?? dirname(new URL(import.meta.url).pathname), 'readme.mjs');
  writeFileSync(file, program);
  const { stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8', timeout: 60_000 });
  rmSync(file);
  assert.is(stderr, '');
  assert.is(stdout, printed);
});

test('npm start prints what the first console block shows, but for times and for what depends on them', async () => {
  const shown = blocks('console').find((text) => text.startsWith('$ npm start\n')) ?? '';
  const { code, stdout } = await run(['up', '--demo']);
  assert.is(code, 0);
  // Who finds a block where depends on what has been saved by then; requests, tokens and the proof do not.
  const steady = (text: string) =>
    text
      .split('\n')
      .map((line) => (/^(prefill|saved|loaded|time| {2}without)/.test(line) ? line.replace(/ *[\d.,]+/g, ' #') : line));
  assert.equal(steady(stdout), steady(shown.slice('$ npm start\n'.length)));
});

test('mooncake-ts hash prints what its console block shows', async () => {
  const shown = blocks('console').find((text) => text.includes('mooncake-ts hash')) ?? '';
  const [, line, printed] = /echo '(.*)' \| npx mooncake-ts hash\n([\s\S]*)$/.exec(shown) ?? [];
  const { stdout, code } = await run(['hash'], `${line}\n`);
  assert.is(code, 0);
  assert.is(stdout, printed);
});

test.run();
