// Which memory may be registered: what may move away is refused, and finding that out changes nothing.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { create, PLANES } from '../support/engines.js';
import { rejects } from './support.js';

for (const plane of PLANES) {
  test(`${plane.name}: memory of WebAssembly is refused, and still there`, async () => {
    const engine = await create(plane);
    const memories = [
      new WebAssembly.Memory({ initial: 1 }),
      new WebAssembly.Memory({ initial: 2, maximum: 4 }),
      new WebAssembly.Memory({ initial: 3, maximum: 3 }),
      new WebAssembly.Memory({ initial: 2, maximum: 4, shared: true }),
    ];
    for (const memory of memories) {
      const view = new Uint8Array(memory.buffer, 100, 1000).fill(5);
      await rejects(engine.register(view), 'ERR_INVALID_ARGUMENT', 'memory');
      assert.is(view.length, 1000);
      assert.is(new Uint8Array(memory.buffer)[100], 5);
    }
    await engine.close();
  });

  test(`${plane.name}: all other memory is taken, whole pages of it too, and is still there`, async () => {
    const engine = await create(plane);
    const page = 65_536;
    const views = [
      new Uint8Array(page),
      new Uint8Array(3 * page),
      new Uint8Array(new ArrayBuffer(2 * page), 1, page),
      Buffer.from('a pooled buffer'),
      Buffer.alloc(page),
      Buffer.allocUnsafe(2 * page),
      new Uint8Array(new SharedArrayBuffer(page)),
      new Uint8Array(1),
    ];
    for (const view of views) {
      view[0] = 9;
      const { length } = view;
      const segment = await engine.register(view);
      assert.is(view.length, length);
      assert.is(segment.memory[0], 9);
      assert.is(segment.length, length);
    }
    const addresses = engine.statistics().segments;
    assert.is(addresses.count, views.length);
    await engine.close();
  });

  test(`${plane.name}: registered memory stays when its buffer is sent away, and may be registered again`, async () => {
    const engine = await create(plane);
    const view = new Uint8Array(65_536).fill(3);
    const first = await engine.register(view);
    if (engine.accelerated) {
      try {
        structuredClone(view, { transfer: [view.buffer] });
      } catch (error) {
        assert.is((error as Error).name, 'DataCloneError');
      }
    }
    assert.is(view.length, 65_536);
    const second = await engine.register(view);
    assert.is(second.memory[0], 3);
    await engine.unregister(first.id);
    await engine.unregister(second.id);
    await engine.close();
  });

  test(`${plane.name}: memory that is gone, empty or may be resized is refused`, async () => {
    const engine = await create(plane);
    const gone = new Uint8Array(100);
    structuredClone(gone, { transfer: [gone.buffer] });
    const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer;
    const Growable = SharedArrayBuffer as unknown as new (length: number, options: object) => SharedArrayBuffer;
    const bad = [
      gone,
      new Uint8Array(),
      new Uint8Array(new Resizable(100, { maxByteLength: 200 })),
      new Uint8Array(new Growable(100, { maxByteLength: 200 })),
      new Uint16Array(4),
      new ArrayBuffer(4),
      undefined,
      { length: 5 },
    ];
    for (const memory of bad) await rejects(engine.register(memory as Uint8Array), 'ERR_INVALID_ARGUMENT', 'memory');
    await rejects(engine.register({ address: 0n, length: 1 }), 'ERR_INVALID_ARGUMENT', 'memory.address');
    await rejects(engine.register({ address: 1n << 64n, length: 1 }), 'ERR_INVALID_ARGUMENT', 'memory.address');
    await rejects(engine.register({ address: 4096n, length: 0 }), 'ERR_INVALID_ARGUMENT', 'memory.length');
    await engine.close();
  });

  test(`${plane.name}: addresses of segments are below 2 ** 47, apart, and never used twice`, async () => {
    const engine = await create(plane);
    const seen: { from: bigint; to: bigint }[] = [];
    for (let round = 0; round < 20; round++) {
      const { id, address, length } = await engine.allocate(1 + round * 300_000);
      const to = address + BigInt(length);
      assert.ok(address > 0n && to < 1n << 47n, `${address}`);
      for (const other of seen) assert.ok(address >= other.to || to <= other.from);
      // Addresses of real memory come back when it does.
      if (plane.native) continue;
      seen.push({ from: address, to });
      await engine.unregister(id);
    }
    await engine.close();
  });
}

test.run();
