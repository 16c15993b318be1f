// Without the accelerator the store's segments are WebAssembly memories: what holds for the one holds for the other.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { content, withStore } from './support.js';

const MiB = 2 ** 20;
const installed = dirname(createRequire(import.meta.url).resolve('mooncake-ts/package.json'));
const accelerated =
  process.env.MOONCAKE_NATIVE !== 'off' && existsSync(join(installed, 'dist', 'native', 'mooncake.node'));

test('with the accelerator a segment is memory of its own; in WebAssembly the core lies beside it', () =>
  withStore({ segments: [{ length: MiB }] }, async (store) => {
    await store.put('key', content(1000, 1));
    const view = await store.getView('key');
    const { buffer } = view?.bytes ?? new Uint8Array();
    assert.is(buffer.byteLength === MiB, accelerated);
  }));

for (const name of ['batches', 'integrity', 'limits', 'values']) {
  test(`${name}, without the accelerator`, () => {
    const file = fileURLToPath(new URL(`./${name}.test.js`, import.meta.url));
    const env = { ...process.env, MOONCAKE_NATIVE: 'off', NO_COLOR: '1' };
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { env, encoding: 'utf8', timeout: 300_000 });
    assert.is(status, 0, `${stdout}\n${stderr}`);
    assert.match(stdout, /Passed:\s+[1-9]/);
  });
}

test.run();
