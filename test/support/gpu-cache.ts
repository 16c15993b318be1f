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
const EVENT_MAGIC = 0x74_6e65_7665_6d67n;

const handles = new WeakMap<ArrayBufferLike, { ipc: DeviceMemory; vmm: DeviceMemory }>();

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

/** Memory of a memfd of its own, and its descriptor. */
function shared(bytes: number): { memory: Uint8Array; fd: number } {
  const before = descriptors();
  const memory = sharedMemory(bytes);
  const fd = [...descriptors()].find((each) => !before.has(each) && statSync(`/proc/self/fd/${each}`).size >= bytes);
  if (fd === undefined) throw new Error('memory without a descriptor');
  return { memory, fd };
}

/** Zeroed memory that kernels of this process write, and others reach by its handle, or its descriptor, alone. */
export function gpuMemory(bytes: number): Uint8Array {
  const { memory, fd } = shared(bytes);
  const handle = new Uint8Array(HANDLE_BYTES);
  const view = new DataView(handle.buffer);
  handle.set(MAGIC);
  view.setInt32(8, process.pid, true);
  view.setInt32(12, fd, true);
  const { size } = statSync(`/proc/self/fd/${fd}`);
  view.setBigUint64(16, BigInt(size), true);
  const place = { device: DEVICE, offset: 0, length: bytes };
  handles.set(memory.buffer, { ipc: { ...place, handle }, vmm: { ...place, fd, size } });
  return memory;
}

/** An event of this process's simulated GPU, which others open by its handle. */
export class GpuEvent {
  readonly handle = new Uint8Array(HANDLE_BYTES);
  readonly #counts: BigUint64Array;

  constructor() {
    const { memory, fd } = shared(4096);
    this.#counts = new BigUint64Array(memory.buffer, memory.byteOffset, 2);
    const view = new DataView(this.handle.buffer);
    view.setBigUint64(0, EVENT_MAGIC, true);
    view.setInt32(8, process.pid, true);
    view.setInt32(12, fd, true);
  }

  /** Behind work that is not over before `over`. */
  record(): void {
    this.#counts[0]++;
  }

  over(): void {
    this.#counts[1] = this.#counts[0];
  }
}

/** The connector, which is told of `gpuMemory` as a GPU's: of cuMemAlloc (`ipc`), or of cuMemCreate. */
export function onGpu(connector: KvConnector, kind: 'ipc' | 'vmm' = 'ipc'): KvConnector {
  return {
    name: connector.name,
    createScheduler: (engine) => connector.createScheduler(engine),
    createWorker: (engine, rank) => {
      const worker = connector.createWorker(engine, rank);
      const register = worker.registerKvCaches.bind(worker);
      worker.registerKvCaches = (caches) =>
        register({ ...caches, memories: caches.memories.map((memory) => deviceOf(memory as Uint8Array, kind)) });
      return worker;
    },
  };
}

export function deviceOf({ buffer }: Uint8Array, kind: 'ipc' | 'vmm'): DeviceMemory {
  const memory = handles.get(buffer)?.[kind];
  if (memory === undefined) throw new Error('this is no memory of gpuMemory');
  return memory;
}
