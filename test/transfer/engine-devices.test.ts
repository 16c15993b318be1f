// Memory of GPUs as the TransferEngine's callers see it: what is refused, and copies where the machine has a GPU. The native
// tests (native/test/cuda) have the rest, on a simulated driver.
import { MooncakeError, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const HANDLE = new Uint8Array(64);

async function codeOf(call: () => unknown): Promise<string | undefined> {
  try {
    await call();
  } catch (error) {
    return error instanceof MooncakeError ? error.code : String(error);
  }
  return undefined;
}

test('arguments are checked before anything is opened', async () => {
  const engine = await TransferEngine.create();
  try {
    const wrong: unknown[] = [
      undefined,
      {},
      { device: 0, address: 1n, length: 1 },
      { device: 'cuda:0', length: 1 },
      { device: 'cuda:0', address: 0n, length: 1 },
      { device: 'cuda:0', address: 4096n, length: 0 },
      { device: 'cuda:0', handle: new Uint8Array(63), length: 1 },
      { device: 'cuda:0', handle: HANDLE, offset: -1, length: 1 },
    ];
    for (const memory of wrong) {
      const code = await codeOf(() => engine.registerDevice(memory as never));
      assert.is(
        code,
        'ERR_INVALID_ARGUMENT',
        JSON.stringify(memory, (_, value) => String(value)),
      );
    }
    assert.is(await codeOf(() => engine.allocateDevice('cuda:0', 0)), 'ERR_INVALID_ARGUMENT');
    assert.is(await codeOf(() => engine.exportDevice(-1)), 'ERR_INVALID_ARGUMENT');
  } finally {
    await engine.close();
  }
});

test('without the accelerator GPUs are not supported', async () => {
  const engine = await TransferEngine.create({ native: false });
  try {
    assert.is(
      await codeOf(() => engine.registerDevice({ device: 'cuda:0', handle: HANDLE, length: 1 })),
      'ERR_NOT_SUPPORTED',
    );
    assert.is(await codeOf(() => engine.allocateDevice('cuda:0', 1)), 'ERR_NOT_SUPPORTED');
    assert.is(await codeOf(() => engine.exportDevice(1)), 'ERR_NOT_SUPPORTED');
  } finally {
    await engine.close();
  }
});

test('a machine without a GPU says so, one with a GPU copies', async () => {
  const engine = await TransferEngine.create();
  try {
    if (!engine.accelerated) return;
    const found = engine.statistics().transports.find(({ name }) => name === 'cuda');
    assert.ok(found, 'the accelerator has the transport');
    if (!found.usable) {
      assert.is(await codeOf(() => engine.allocateDevice('cuda:0', 4096)), 'ERR_NOT_SUPPORTED');
      return;
    }
    const gpu = await engine.allocateDevice('cuda:0', 4096);
    assert.is(engine.exportDevice(gpu.id).handle.length, 64);
    assert.is(await codeOf(() => engine.allocateDevice('cuda:99', 4096)), 'ERR_INVALID_ARGUMENT');
    await engine.unregister(gpu.id);
  } finally {
    await engine.close();
  }
});

test('a transport that was left out is not used', async () => {
  const engine = await TransferEngine.create({ transports: ['tcp'] });
  try {
    assert.is(await codeOf(() => engine.allocateDevice('cuda:0', 4096)), 'ERR_NOT_SUPPORTED');
  } finally {
    await engine.close();
  }
});

test.run();
