/** Engines with GPU memory that die or lie, at a service: it lets go of what they handed over, and serves the others. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ServiceStatus } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { gpuTest } from '../support/gpu.js';
import { GpuOwner } from '../support/gpu-owner.js';
import { ENGINE, RawClient } from './raw-client.js';
import { ServiceProcess } from './service-process.js';

const LENGTH = 1 << 20;
const STORE = { kind: 'store' };
const LAYOUT = {
  segments: [{ id: 0, length: LENGTH }],
  groups: [
    {
      kind: 'mla',
      layers: [0],
      blockSize: ENGINE.hash.blockSize,
      blocks: 16,
      tensors: {
        latent: {
          dtype: 'uint8',
          elements: 64,
          strides: { block: 64 * ENGINE.hash.blockSize, token: 64, head: null },
          at: [{ segment: 0, offset: 0 }],
        },
      },
    },
  ],
  tensorParallel: { rank: 0, size: 1 },
};

async function withService(body: (service: ServiceProcess, status: () => Promise<ServiceStatus>) => Promise<void>) {
  const service = await ServiceProcess.start();
  try {
    await body(service, async () => {
      const client = await RawClient.open(service.socket);
      const found = await client.ok('status', {});
      client.close();
      return found;
    });
  } finally {
    await service.close();
  }
}

/** Memories of simulated GPUs that the service has open. */
const opened = ({ pid }: ServiceProcess) => readFileSync(`/proc/${pid}/maps`, 'utf8').match(/memfd:/g)?.length ?? 0;

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1500; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`it never came to be: ${what}`);
}

gpuTest(
  test,
  'engines that are killed leave none of their GPU memory open',
  () =>
    withService(async (service, status) => {
      const program = fileURLToPath(new URL('./engine-child.js', import.meta.url));
      const counts: number[] = [];
      for (const rounds of [1, 2, 1, 3]) {
        const child = spawn(process.execPath, [program, service.socket, `killed-${counts.length}`, 'gpu'], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        for (let i = 0; i < rounds; i++) await once(child.stdout, 'data');
        const during = opened(service);
        child.kill('SIGKILL');
        await once(child, 'exit');
        await until('no engine', async () => (await status()).engines.length === 0);
        await until('memory let go', () => opened(service) < during);
        counts.push(opened(service));
      }
      // Windows and the store's own memory stay; nothing of any engine does.
      assert.is(counts.at(-1), counts[0]);
    }),
  true,
);

gpuTest(
  test,
  'a handle that cannot be opened is refused by name, and the next run of the engine is taken',
  () =>
    withService(async (service, status) => {
      const gpu = await GpuOwner.start(LENGTH);
      try {
        const { device, handle, offset } = gpu;
        const before = opened(service);
        const good = { kind: 'cuda-ipc', device, handle, offset, length: LENGTH };
        const attach = { engine: { ...ENGINE, engineId: 'gpu' }, connector: STORE, rank: 0 };
        const wrong: [object[], string, RegExp][] = [
          [[{ ...good, handle: new Uint8Array(64) }], 'ERR_INVALID_ARGUMENT', /cuIpcOpenMemHandle/],
          [[{ ...good, device: 'GPU-none' }], 'ERR_INVALID_ARGUMENT', /GPU-none/],
          [[{ ...good, length: LENGTH + 4096 }], 'ERR_INVALID_ARGUMENT', /leave the allocation/],
          // The good one of both is let go as well.
          [[good, { ...good, handle: new Uint8Array(64) }], 'ERR_INVALID_ARGUMENT', /cuIpcOpenMemHandle/],
        ];
        for (const [memories, code, text] of wrong) {
          const client = await RawClient.open(service.socket);
          const { session } = await client.ok('worker.attach', attach);
          const error = await client.refused('worker.register', { session, memories, layout: LAYOUT });
          assert.is(error.code, code);
          assert.match(error.message, text);
          client.close();
          await until('no engine', async () => (await status()).engines.length === 0);
          await until('memory let go', () => opened(service) <= before);
        }
        const client = await RawClient.open(service.socket);
        const { session } = await client.ok('worker.attach', attach);
        await client.ok('worker.register', { session, memories: [good], layout: LAYOUT });
        assert.is((await status()).engines[0].engineId, 'gpu');
        assert.ok(opened(service) > before);
        client.close();
        await until('memory let go', () => opened(service) <= before);
      } finally {
        await gpu.close();
      }
    }),
  true,
);

test.run();
