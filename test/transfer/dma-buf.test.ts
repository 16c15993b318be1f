// Memory of other devices needs a NIC: what is said where there is none, or no such memory. test/rdma has NICs.
import { closeSync, openSync, readdirSync } from 'node:fs';
import { type DmaBuf, TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rejects } from './support.js';

const descriptors = () => readdirSync('/proc/self/fd').length;

for (const native of [true, false]) {
  test(`${native ? 'the accelerator' : 'TypeScript'}: a dma-buf that nothing here reaches is refused, and nothing of it is kept`, async () => {
    const engine = await TransferEngine.create({ native, transports: ['tcp'] });
    const fd = openSync('/proc/self/exe', 'r');
    const before = descriptors();
    try {
      for (let i = 0; i < 3; i++) {
        await rejects(engine.register({ kind: 'dma-buf', fd, length: 4096 }, { name: 'gpu' }), 'ERR_NOT_SUPPORTED');
      }
      assert.is(engine.statistics().segments.count, 0);
      assert.is(descriptors(), before);
      const wrong: [string, unknown][] = [
        ['memory.fd', { kind: 'dma-buf', fd: -1, length: 1 }],
        ['memory.length', { kind: 'dma-buf', fd, length: 0 }],
        ['memory.pci', { kind: 'dma-buf', fd, length: 1, pci: '3b:00.0' }],
        ['memory.pci', { kind: 'dma-buf', fd, length: 1, pci: 59 }],
        ['memory.offset', { kind: 'dma-buf', fd, length: 1, offset: 0.5 }],
      ];
      for (const [argument, memory] of wrong) {
        await rejects(engine.register(memory as DmaBuf), 'ERR_INVALID_ARGUMENT', argument);
      }
      if (native && engine.accelerated) {
        await rejects(engine.register({ kind: 'dma-buf', fd: 9999, length: 1 }), 'ERR_INVALID_ARGUMENT');
        await rejects(engine.register({ kind: 'dma-buf', fd, offset: 2 ** 50, length: 1 }), 'ERR_INVALID_ARGUMENT');
        // In no machine's last domain.
        const absent = engine.register({ kind: 'dma-buf', fd, length: 1, pci: 'fffffffe:FF:1f.7' });
        assert.match((await rejects(absent, 'ERR_INVALID_ARGUMENT')).message, 'no PCI device fffffffe:FF:1f.7');
      }
    } finally {
      closeSync(fd);
      await engine.close();
    }
  });
}

test.run();
