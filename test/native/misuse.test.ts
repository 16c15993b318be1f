// The addon under wrong arguments of every kind, getters that throw among them: it throws, and goes on.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { skip } from '../support/skip.js';

type Call = (...values: unknown[]) => unknown;
type NativeEngine = Record<string, Call> & { close(closed: () => void): void };

const misuse = suite('the accelerator, misuse');
const require = createRequire(import.meta.url);

interface Addon {
  Engine: new (options: unknown) => NativeEngine;
  ControlSocket: new (path: unknown) => unknown;
  copyPieces: Call;
}

function load(): Addon | undefined {
  try {
    return require(join(dirname(require.resolve('mooncake-ts/package.json')), 'dist/native/mooncake.node'));
  } catch (error) {
    skip(misuse, 'wrong arguments', (error as Error).message.split('\n')[0], 'build it: npm run build');
    return undefined;
  }
}

const addon = load();
const fail = () => {
  throw new Error('a trap');
};
const trap = new Proxy({}, { get: fail, ownKeys: fail, has: fail });
const detached = new Uint8Array(64);
structuredClone(detached, { transfer: [detached.buffer] });
const WRONG: unknown[] = [
  ...[
    undefined,
    null,
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
    2 ** 32,
    '/nowhere/x',
    '',
    Symbol('s'),
    -1n,
    2n ** 64n,
  ],
  ...[
    {},
    [],
    trap,
    [trap],
    [null],
    [{}],
    [{ transport: 'tcp', settings: trap }],
    { toString: fail },
    { numaNode: trap },
  ],
  ...[detached, new Uint8Array(), new Uint8Array(64), new Float64Array(3), new SharedArrayBuffer(8), () => {}, true],
  ...[{ hugePages: 3 }, { transports: [Symbol('s')], onCompletions() {} }, { transports: trap, onCompletions() {} }],
];

if (addon) {
  misuse('every method throws, or does what it was asked, and the engine goes on', async () => {
    const engine = new addon.Engine({ onCompletions() {} });
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(engine)).filter(
      (name) => !['constructor', 'close', 'generation'].includes(name),
    );
    let refused = 0;
    const attempt = (call: () => unknown) => {
      try {
        call();
      } catch {
        refused++;
      }
    };
    for (const name of methods) {
      for (const first of WRONG) {
        attempt(() => engine[name](first));
        for (const second of WRONG) attempt(() => engine[name](first, second, WRONG[refused % WRONG.length]));
      }
      attempt(() => engine[name].call({}));
    }
    for (const options of WRONG) attempt(() => new addon.Engine(options));
    assert.ok(refused > methods.length * WRONG.length);
    const { id } = engine.allocate(4096, {}) as { id: number };
    await new Promise<void>((released) => void engine.unregister(id, released));
    await new Promise<void>((closed) => engine.close(closed));
    for (const name of methods) attempt(() => engine[name](1, 1, 1));
  });
}

if (addon) {
  misuse('copies and sockets with wrong arguments are refused, and copy nothing', () => {
    const [to, from] = [new Uint8Array(64), new Uint8Array(64).fill(7)];
    const fine: unknown[] = [[to, from], new Uint32Array(1), new BigUint64Array(1), 64];
    const wrong: unknown[][] = WRONG.flatMap((value) => [0, 1, 2].map((at) => fine.with(at, value)));
    // No pair is nothing to copy.
    for (const values of wrong.filter(([views]) => !(Array.isArray(views) && views.length === 0))) {
      assert.throws(() => addon.copyPieces(...values));
    }
    for (const views of [[to], [to, from.subarray(1)], [to, detached]]) {
      assert.throws(() => addon.copyPieces(...fine.with(0, views)));
    }
    assert.throws(() => addon.copyPieces(...fine.with(1, Uint32Array.of(1))), /names no sum/);
    assert.ok(to.every((byte) => byte === 0));
    addon.copyPieces(...fine);
    assert.equal(to, from);
    for (const value of WRONG) assert.throws(() => new addon.ControlSocket(value));
  });
}

misuse.run();
