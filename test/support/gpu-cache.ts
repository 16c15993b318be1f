/**
 * A KV cache in memory of a simulated GPU whose kernels are the test itself: it writes a memfd that the driver of other
 * processes opens by an IPC handle, as native/test/cuda/library.cpp makes them, and there no processor can touch it.
 */
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import type { DeviceMemory, KvConnector } from 'mooncake-ts';
import { sharedMemory } from 'mooncake-ts';

const DEVICE = 'cuda:0';
const HANDLE_BYTES = 64;
const MAGIC = Buffer.from('gmdouble', 'latin1');

const handles = new WeakMap<ArrayBufferLike, DeviceMemory>();

const descriptors = () => {
  const open = new Set<number>();
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`).startsWith('/memfd:')) open.add(Number(name));
    } catch {
      // Closed meanwhile.
    }
  }
  return open;
};

/** Zeroed memory that kernels of this process write, and others reach by its handle alone. */
export function gpuMemory(bytes: number): Uint8Array {
  const before = descriptors();
  const memory = sharedMemory(bytes);
  const fd = [...descriptors()].find((each) => !before.has(each) && statSync(`/proc/self/fd/${each}`).size >= bytes);
  if (fd === undefined) throw new Error('memory without a descriptor');
  const handle = new Uint8Array(HANDLE_BYTES);
  const view = new DataView(handle.buffer);
  handle.set(MAGIC);
  view.setInt32(8, process.pid, true);
  view.setInt32(12, fd, true);
  view.setBigUint64(16, BigInt(statSync(`/proc/self/fd/${fd}`).size), true);
  handles.set(memory.buffer, { device: DEVICE, handle, offset: 0, length: bytes });
  return memory;
}

/** The connector, which is told of `gpuMemory` as a GPU's. */
export function onGpu(connector: KvConnector): KvConnector {
  return {
    name: connector.name,
    createScheduler: (engine) => connector.createScheduler(engine),
    createWorker: (engine, rank) => {
      const worker = connector.createWorker(engine, rank);
      const register = worker.registerKvCaches.bind(worker);
      worker.registerKvCaches = (caches) =>
        register({ ...caches, memories: caches.memories.map((memory) => deviceOf(memory as Uint8Array)) });
      return worker;
    },
  };
}

function deviceOf({ buffer }: Uint8Array): DeviceMemory {
  const memory = handles.get(buffer);
  if (memory === undefined) throw new Error('this is no memory of gpuMemory');
  return memory;
}
