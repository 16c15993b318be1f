/**
 * Loads the WASM core. One compiled module per build and process; as many instances as there are structures: an index
 * or an allocator owns the memory of its instance, and one scratch instance serves the calls that keep no state
 * (hashing, layout, checksums). Nothing here may import Node: the same file runs in browsers and edge workers.
 */
import binary from '#core-wasm';
import { errors } from './errors.js';

const PAGE = 65536;
const MAX_PAGES = 65536;
const INITIAL_PAGES = 2;

/** What every build exports beside its stems (assembly/memory.ts). */
export interface MemoryExports {
  heapBase(): number;
  ensure(end: bigint): number;
}

/** An instance of the core with its memory and fresh views of it. `E` lists the exports its user calls. */
export class Core<E = unknown> {
  readonly memory: WebAssembly.Memory;
  readonly exports: E & MemoryExports;
  /** First free address of a fresh memory. */
  readonly heap: number;
  #u8!: Uint8Array;
  #u32!: Uint32Array;
  #i32!: Int32Array;
  #f64!: Float64Array;
  #u64!: BigUint64Array;

  constructor(module: WebAssembly.Module, memory: WebAssembly.Memory) {
    this.memory = memory;
    this.exports = new WebAssembly.Instance(module, { env: { memory } }).exports as E & MemoryExports;
    this.heap = this.exports.heapBase() >>> 0;
    this.#refresh();
  }

  #refresh(): void {
    const { buffer } = this.memory;
    this.#u8 = new Uint8Array(buffer);
    this.#u32 = new Uint32Array(buffer);
    this.#i32 = new Int32Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
  }

  // Growth detaches a private buffer and outgrows a shared one's views: either way `buffer` is another object then.
  #fresh(): void {
    if (this.#u8.buffer !== this.memory.buffer) this.#refresh();
  }

  get u8(): Uint8Array {
    this.#fresh();
    return this.#u8;
  }

  get u32(): Uint32Array {
    this.#fresh();
    return this.#u32;
  }

  get i32(): Int32Array {
    this.#fresh();
    return this.#i32;
  }

  get f64(): Float64Array {
    this.#fresh();
    return this.#f64;
  }

  get u64(): BigUint64Array {
    this.#fresh();
    return this.#u64;
  }

  /** Bytes of memory in use by this instance, growth included. */
  get byteLength(): number {
    return this.memory.buffer.byteLength;
  }

  /** Makes addresses below `end` usable; `what` names the call in the error. */
  reserve(end: number, what: string): void {
    // 2^32 is 0 in the core: a loop up to that end would do nothing.
    if (end >= 2 ** 32) throw errors.outOfMemory(what, end);
    const have = this.memory.buffer.byteLength;
    if (end <= have) return;
    try {
      this.memory.grow(Math.ceil((end - have) / PAGE));
    } catch {
      throw errors.outOfMemory(what, end);
    }
  }
}

let privateModule: WebAssembly.Module | undefined;
let sharedModule: WebAssembly.Module | undefined;
let sharedSource: SharedCoreSource | undefined;

function compile(source: Uint8Array | WebAssembly.Module): WebAssembly.Module {
  return source instanceof WebAssembly.Module ? source : new WebAssembly.Module(source as BufferSource);
}

/** The compiled core with private memory; compiled on first use. */
export function coreModule(): WebAssembly.Module {
  return (privateModule ??= compile(binary));
}

/** The shared build: its bytes, the compiled module, or a function that reads them when they are first needed. */
export type SharedCoreSource = Uint8Array | WebAssembly.Module | (() => Uint8Array | WebAssembly.Module);

/**
 * Gives this realm the core for shared memory (package export `mooncake-ts/core.shared.wasm`). The Node entry does
 * this itself; a page that is cross-origin isolated fetches the file and calls this once.
 */
export function useSharedCore(source: SharedCoreSource): void {
  sharedSource = source;
  sharedModule = undefined;
}

/** The compiled core for shared memory; compiled on first use. */
export function sharedCoreModule(): WebAssembly.Module {
  if (sharedModule) return sharedModule;
  if (!sharedSource) {
    throw errors.notSupported(
      'shared memory without its core',
      "call useSharedCore(bytes) with the package's core.shared.wasm first",
    );
  }
  return (sharedModule = compile(typeof sharedSource === 'function' ? sharedSource() : sharedSource));
}

export interface InstantiateOptions {
  /** Use the shared build, over `memory` or a new shared memory. Default false. */
  shared?: boolean;
  /** An existing memory (the shared build only: a second instance over one structure). */
  memory?: WebAssembly.Memory;
  /** Upper bound of the memory, in bytes. Default 4 GiB. */
  maxBytes?: number;
}

// An engine reserves address space for each memory (V8 some 10 GiB), so there may be no room for one more.
function createMemory(maximum: number, shared: boolean): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum, shared });
  } catch {
    throw errors.outOfMemory('an instance of the core', maximum * PAGE);
  }
}

/** A new instance of the core with a memory of its own, or over an existing shared memory. */
export function instantiate<E>(options: InstantiateOptions = {}): Core<E> {
  const shared = options.shared ?? false;
  const maximum = Math.min(
    MAX_PAGES,
    Math.max(INITIAL_PAGES, Math.floor((options.maxBytes ?? MAX_PAGES * PAGE) / PAGE)),
  );
  const memory = options.memory ?? createMemory(maximum, shared);
  return new Core<E>(shared ? sharedCoreModule() : coreModule(), memory);
}

let scratchInstance: Core<unknown> | undefined;

/** The instance for calls that keep no state. Its heap is free at the start of every call and kept by none. */
export function scratch<E>(): Core<E> {
  return (scratchInstance ??= instantiate<unknown>()) as Core<E>;
}
