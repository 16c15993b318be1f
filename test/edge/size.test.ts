import { gzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { bundle, type Target } from './support/bundle.js';

const LIMIT = 60_000;

for (const target of ['browser', 'workerd'] satisfies Target[]) {
  test(`the whole edge entry is at most ${LIMIT} bytes gzipped for ${target}, WASM included`, async () => {
    const files = await bundle({ source: "export * from 'mooncake-ts/edge';" }, target, { minify: true });
    const sizes = files.map(({ name, contents }) => ({ name, bytes: gzipSync(contents, { level: 9 }).length }));
    const total = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(
      `\nNOTE edge entry for ${target}: ${total} bytes gzipped (${sizes.map(({ name, bytes }) => `${name} ${bytes}`).join(', ')})`,
    );
    assert.ok(total <= LIMIT, `${total} bytes`);
  });
}

test('nothing of Node is in the bundle', async () => {
  const [{ contents }] = await bundle({ source: "export * from 'mooncake-ts/edge';" }, 'browser');
  assert.not.match(Buffer.from(contents).toString(), /node:|\bBuffer\b|\bprocess\./);
});

test.run();
