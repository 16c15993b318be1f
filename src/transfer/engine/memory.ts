/** Which memory may be registered: only what stays where it is, as long as it is registered. */
import * as workerThreads from 'node:worker_threads';
import { integer, options, string, typedArray } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import type { DeviceMemory, DmaBuf, ForeignMemory } from './api.js';

/** ES2024 and later; undefined before. */
type NewerBuffer = ArrayBufferLike & { resizable?: boolean; growable?: boolean; transfer?: (length: number) => void };

const WASM_PAGE_BYTES = 65_536;
/** Domain, bus, device and function, as drivers print them. */
const PCI_ADDRESS = /^[\da-f]{4,8}:[\da-f]{2}:[01][\da-f]\.[0-7]$/i;

// The second one is there in Node 21 and later.
const { markAsUntransferable, isMarkedAsUntransferable } = workerThreads as {
  markAsUntransferable?: (value: object) => void;
  isMarkedAsUntransferable?: (value: object) => boolean;
};

const kept = new WeakSet<ArrayBufferLike>();

/**
 * Registered bytes stay with their buffer: one that is sent to another thread takes them along, and the collector there
 * frees them under the transfers. For good, since nobody can take the mark off again.
 */
export function keepInPlace({ buffer }: Uint8Array): void {
  if (!(buffer instanceof ArrayBuffer) || kept.has(buffer)) return;
  kept.add(buffer);
  markAsUntransferable?.(buffer);
}

export function isDmaBuf(memory: Uint8Array | ForeignMemory | DmaBuf): memory is DmaBuf {
  return (memory as DmaBuf | null)?.kind === 'dma-buf';
}

/** Throws ERR_INVALID_ARGUMENT. `pci`: empty where no device is named. */
export function checkDmaBuf(memory: DmaBuf): Required<DmaBuf> {
  const { fd, offset = 0, length, pci = '' } = memory;
  integer('memory.fd', fd, 0, 0x7fff_ffff);
  integer('memory.offset', offset, 0, Number.MAX_SAFE_INTEGER);
  integer('memory.length', length, 1, Number.MAX_SAFE_INTEGER);
  if (pci !== '' && !PCI_ADDRESS.test(string('memory.pci', pci))) {
    throw errors.invalidArgument('memory.pci', pci, 'a PCI address such as "0000:3b:00.0"');
  }
  return { kind: 'dma-buf', fd, offset, length, pci };
}

/** Throws ERR_INVALID_ARGUMENT. */
export function checkMemory(memory: Uint8Array | ForeignMemory): Uint8Array | ForeignMemory {
  if (typeof (memory as ForeignMemory | null)?.address === 'bigint') return checkForeign(memory as ForeignMemory);
  const view = typedArray<Uint8Array>(
    'memory',
    memory,
    memory instanceof Uint8Array,
    "a Uint8Array, { address, length } or { kind: 'dma-buf', fd, length }",
  );
  if (view.length === 0) throw errors.invalidArgument('memory', memory, 'at least one byte long');
  const buffer = view.buffer as NewerBuffer;
  if (buffer.resizable || buffer.growable) {
    throw errors.invalidArgument('memory', memory, 'over a buffer that cannot be resized');
  }
  if (isWebAssembly(buffer)) {
    throw errors.invalidArgument('memory', memory, 'no view of a WebAssembly.Memory, which detaches when it grows');
  }
  return view;
}

function checkForeign({ address, length }: ForeignMemory): ForeignMemory {
  integer('memory.length', length, 1, Number.MAX_SAFE_INTEGER);
  if (address <= 0n || address + BigInt(length) > 1n << 64n) {
    throw errors.invalidArgument('memory.address', address, 'an address of 64 bits that is not 0');
  }
  return { address, length };
}

/** Whether memory to be registered is meant to be a GPU's; `checkDevice` says whether it can be. */
export function isDeviceMemory(memory: Uint8Array | DeviceMemory): memory is DeviceMemory {
  return !(memory instanceof Uint8Array) && typeof (memory as DeviceMemory | null)?.device === 'string';
}

/** What the CUDA driver names memory and events by. Throws ERR_INVALID_ARGUMENT. */
export function handle64(argument: string, handle: Uint8Array): Uint8Array {
  return typedArray(argument, handle, handle instanceof Uint8Array && handle.length === 64, 'a Uint8Array of 64 bytes');
}

/** Throws ERR_INVALID_ARGUMENT. */
export function checkDevice(memory: DeviceMemory, argument = 'memory'): DeviceMemory {
  if (memory === undefined) throw errors.invalidArgument(argument, memory, 'an object');
  options(argument, memory);
  string(`${argument}.device`, memory.device);
  integer(`${argument}.length`, memory.length, 1, Number.MAX_SAFE_INTEGER);
  if ('parts' in memory) {
    const { parts } = memory;
    if (!Array.isArray(parts) || parts.length === 0) {
      throw errors.invalidArgument(`${argument}.parts`, parts, 'an array of { fd, size } that is not empty');
    }
    for (const [index, { fd, size }] of parts.entries()) {
      integer(`${argument}.parts[${index}].fd`, fd, 0, 0x7fff_ffff);
      integer(`${argument}.parts[${index}].size`, size, 1, Number.MAX_SAFE_INTEGER);
    }
    integer(`${argument}.offset`, memory.offset ?? 0, 0, Number.MAX_SAFE_INTEGER);
  } else if ('size' in memory) {
    integer(`${argument}.size`, memory.size, 1, Number.MAX_SAFE_INTEGER);
    integer(`${argument}.offset`, memory.offset ?? 0, 0, Number.MAX_SAFE_INTEGER);
    if ('fd' in memory) integer(`${argument}.fd`, memory.fd, 0, 0x7fff_ffff);
    else handle64(`${argument}.fabric`, memory.fabric);
  } else if ('handle' in memory) {
    handle64(`${argument}.handle`, memory.handle);
    integer(`${argument}.offset`, memory.offset ?? 0, 0, Number.MAX_SAFE_INTEGER);
  } else {
    const { address } = memory;
    if (typeof address !== 'bigint') throw errors.invalidArgument('memory.address', address, 'a bigint');
    checkForeign(memory);
  }
  return memory;
}

/**
 * Whether a buffer is a WebAssembly.Memory's. That of a shared memory is frozen (WebAssembly JavaScript interface, "create a
 * fixed length memory buffer"); others are whole pages long and nobody but their memory may detach them. The latter is
 * asked in ways that detach nothing: both end at an error, and it tells which check came first.
 */
export function isWebAssembly(buffer: ArrayBufferLike): boolean {
  if (!(buffer instanceof ArrayBuffer)) return Object.isFrozen(buffer);
  if (buffer.byteLength % WASM_PAGE_BYTES !== 0 || kept.has(buffer) || isMarkedAsUntransferable?.(buffer)) return false;
  return !isDetachable(buffer);
}

function isDetachable(buffer: ArrayBuffer): boolean {
  const { transfer } = buffer as NewerBuffer;
  if (transfer) {
    try {
      // No buffer has this length. The buffer's right to be detached is looked at before (ECMA-262 25.1.3.5).
      transfer.call(buffer, Number.MAX_SAFE_INTEGER);
    } catch (error) {
      return error instanceof RangeError;
    }
  }
  // Node 20: buffers that cannot be detached are left out of the transfer list before it is searched for duplicates; the
  // value is looked at after it.
  const untouched = {};
  const value = {
    get value() {
      throw untouched;
    },
  };
  try {
    structuredClone(value, { transfer: [buffer, buffer] });
  } catch (error) {
    return error !== untouched;
  }
  return false;
}
