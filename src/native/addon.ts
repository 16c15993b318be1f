/**
 * The native accelerator as TypeScript sees it (native/binding/). Nothing here is public: src/native/load.ts finds the
 * addon, src/transfer/engine wraps it. Numbers of bytes are JS numbers (below 2^53), addresses are bigints.
 */

/** Same order as `enum class Code` in native/engine/status.h. */
export const NATIVE_CODES = [
  'ok',
  'invalidArgument',
  'segment',
  'peer',
  'timeout',
  'aborted',
  'closed',
  'corrupt',
  'protocol',
  'queueFull',
  'notSupported',
  'outOfMemory',
  'system',
] as const;

export const OP = { read: 0, write: 1, copy: 2 } as const;

/** Flat, as they stand in a segment descriptor. */
export type Settings = Record<string, string>;

export interface Endpoint {
  transport: string;
  settings: Settings;
}

/** For copyPieces: no checksum is wanted. */
export const NO_SUM = 0xffff_ffff;

/** Events that a copy with memory of GPUs waits for and records, and how often each record repeats at which strides. */
export interface DeviceOrder {
  waitFor?: number[];
  record?: number[];
  count?: number;
  sourceStride?: number;
  destinationStride?: number;
}

/** How a batch ended. */
export interface Completion {
  batch: number;
  /** Index into NATIVE_CODES. */
  code: number;
  detail: string;
  bytes: number;
  verifiedBytes: number;
  milliseconds: number;
}

export interface NativeEngineOptions {
  copyThreads?: number;
  maxBatches?: number;
  spinUs?: number;
  transports?: string[];
  /** The part of a GPU's multiprocessors that copies may have, 0 to 1. */
  gpuShare?: number;
  /** Called once per wake-up with every batch that ended since the last. */
  onCompletions(completions: Completion[]): void;
  /** A handshake of a peer (type 1 metadata, 2 notify, 3 probe); answer with `reply(id, json)` within 5 s. */
  onHandshake?(id: number, type: number, json: string): void;
  /** A link wants its peer asked for a connection: answer with `shaken(id, …)` within 5 s. */
  onShake?(id: number, peer: string, request: Settings): void;
}

export type ExposeDone = (code: number, local: string | number[], remote?: number[], refusals?: string) => void;

/** Methods throw an Error with `code` (an index into NATIVE_CODES) where they refuse. */
export interface NativeEngine {
  /** 16 hex digits. */
  readonly generation: string;
  /** `memory` is an external ArrayBuffer; it stays valid after `unregister` until it is collected. */
  allocate(
    length: number,
    options: { hugePages?: boolean; numaNode?: number; writable?: boolean },
  ): { id: number; memory: ArrayBuffer; address: bigint };
  /** Keeps a reference to the view's buffer until the segment is released. */
  registerView(view: Uint8Array, writable: boolean): { id: number; address: bigint };
  registerAddress(address: bigint, length: number, writable: boolean): { id: number };
  /** What a dma-buf holds, which NICs alone reach; `address` is what peers on the wire call its first byte. */
  registerDmabuf(
    fd: number,
    offset: number,
    length: number,
    writable: boolean,
    /** Of the device that has it; empty: not known. Refused where the kernel shows no such device. */
    pci: string,
  ): { id: number; address: bigint };
  /** On a thread of its own, since the file's blocks are allocated. */
  openFile(path: string, length: number, writable: boolean): Promise<{ id: number; length: number }>;
  /** Memory of a GPU ("cuda:0", or its UUID), reached by copies alone; the segment's id. */
  allocateDevice(device: string, length: number): number;
  registerDevice(device: string, address: bigint, length: number): number;
  /** `handle`: the 64 bytes of cuIpcGetMemHandle, from another process. */
  importDevice(device: string, handle: Uint8Array, offset: number, length: number): number;
  exportDevice(segment: number): { handle: Uint8Array; offset: number };
  /** Memory of cuMemCreate, which can be handed over as a descriptor. */
  allocateVirtual(device: string, length: number): number;
  /**
   * `shared`: descriptors, which stay the caller's, or a fabric handle of 64 bytes; of allocations of `sizes` bytes each, which are
   * mapped one behind the other.
   */
  mapDevice(device: string, shared: number[] | Uint8Array, sizes: number[], offset: number, length: number): number;
  /** The descriptor is the caller's. */
  exportDescriptor(
    segment: number,
    kind: 'cuda-vmm-fd' | 'dma-buf',
  ): { fd: number; offset: number; size: number; pci?: string };
  createEvent(device: string): number;
  /** `handle`: the 64 bytes of cuIpcGetEventHandle, from another process. */
  openEvent(device: string, handle: Uint8Array): number;
  exportEvent(event: number): Uint8Array;
  closeEvent(event: number): void;
  /** `released` is called once nothing touches the memory any more. */
  unregister(id: number, released: () => void): void;
  listen(transport: string, settings: Settings): Settings;
  reply(handshake: number, json: string): void;
  /** Makes a segment reachable over a transport that needs keys, one for each NIC; `done` gets an index into NATIVE_CODES, and why
   *  not, or both lists and what NICs said that have not taken it. Takes as long as pinning the pages does, on another thread. */
  expose(transport: string, segment: number, done: ExposeDone): void;
  /** Answers a peer that asks for a connection. */
  accept(transport: string, request: Settings, done: (answer: Settings) => void): void;
  /** The peer's answer to `onShake`, or why there is none. */
  shaken(shake: number, answer: Settings | string): void;
  openPeer(name: string, generation: string, endpoints: Endpoint[]): number;
  setSegments(
    peer: number,
    segments: { id: number; address: bigint; length: number; keys?: number[]; writable?: boolean }[],
  ): void;
  closePeer(peer: number): void;
  /** `descriptors`: KVTD bytes, copied. `timeoutMs` from now. Returns the batch's number. */
  submit(
    op: number,
    peer: number,
    descriptors: Uint8Array,
    timeoutMs: number,
    verify: boolean,
    device?: DeviceOrder,
  ): number;
  cancel(batch: number): void;
  /** JSON of Engine::statistics. */
  statistics(): string;
  /** Ends everything; `closed` is called when all threads are gone. While open, the engine does not keep Node alive unless
   *  a batch is under way. */
  close(closed: () => void): void;
}

/** `name`: memfd, hugePages, memoryPolicy, ioUring, processVm, processVmPeers, libibverbs.so.1, libcuda.so.1. */
export interface NativeFeature {
  name: string;
  usable: boolean;
  /** What was found, or what failed and how. */
  detail: string;
}

/** Grows with every change of `Addon`, with kInterface in native/binding/probe.cpp. */
export const INTERFACE = 12;

/** The socket on which the node service is handed descriptors of engines' memory (native/service/descriptor_socket.h). */
export interface DescriptorSocket {
  /** Descriptors that wait for their ticket to be named. */
  readonly waiting: number;
  /**
   * Maps `length` bytes from `offset` of the memory that process `pid` handed over under the ticket of 16 bytes, which is used
   * up then. `releaseMemory` unmaps it, or the collector.
   */
  take(ticket: Uint8Array, pid: number, offset: number, length: number): ArrayBuffer;
  /** The descriptor of an allocation on a GPU that process `pid` handed over; the caller's to close. */
  takeAllocation(ticket: Uint8Array, pid: number): number;
  close(): void;
}

/** A client's end of a control socket (native/service/control_socket.h). No call but `wait` waits. */
export interface ControlSocket {
  /** Bytes that were taken; 0 where there is no room now. Throws when the connection has ended. */
  send(bytes: Uint8Array): number;
  /** Bytes that had come; 0: none now; -1: the peer has ended its side. */
  receive(into: Uint8Array): number;
  /** Until there is something to receive, or room to send where that is asked for; false when the time is over. */
  wait(toSend: boolean, timeoutMs: number): boolean;
  /** A descriptor of the same socket, for the caller to close. */
  duplicate(): number;
  close(): void;
}

export interface Addon {
  readonly ControlSocket: new (path: string) => ControlSocket;
  readonly DescriptorSocket: new (
    path: string,
    limits: { patienceMs?: number; tickets?: number; connections?: number },
  ) => DescriptorSocket;
  /**
   * Hands memory that `allocate` made, or a part of it, over to the service that listens at `path`; blocks up to `timeoutMs`.
   * Returns where it begins in its descriptor.
   */
  shareMemory(path: string, ticket: Uint8Array, memory: Uint8Array, timeoutMs: number): number;
  /** Hands a descriptor that the driver made of an allocation of `size` bytes on a GPU over; blocks up to `timeoutMs`. */
  shareAllocation(path: string, ticket: Uint8Array, fd: number, size: number, timeoutMs: number): void;
  /** Detaches a buffer of ours, whose memory goes at once. Nothing may use it any more. */
  releaseMemory(memory: ArrayBuffer): void;
  /** Who is at the other end of a Unix socket, by the kernel's word; pid 0: in a namespace that is not seen from here. */
  peerCredentials(fd: number): { pid: number; uid: number };
  readonly Engine: new (options: NativeEngineOptions) => NativeEngine;
  /** CRC-64 of the view, continued from `crc`. */
  crc64(view: Uint8Array, crc: bigint): bigint;
  /**
   * Copies `source` to `destination` (same length; they may overlap); the CRC-64 of what was copied, continued from `crc`.
   * `streaming`: past the caches, or not; default: past them where the size makes that faster.
   */
  copyCrc64(destination: Uint8Array, source: Uint8Array, crc: bigint, streaming?: boolean): bigint;
  copy(destination: Uint8Array, source: Uint8Array, streaming?: boolean): void;
  /**
   * Many copies, shared with threads that help; `views`: destination and source in turns. `which`: the index in `sums` that a
   * pair continues, pairs of one sum in their order, or NO_SUM. From `streamingBytes` on a pair goes past the caches.
   */
  copyPieces(views: readonly Uint8Array[], which: Uint32Array, sums: BigUint64Array, streamingBytes: number): void;
  /** Zeroed memory that no engine owns; engines with which the whole of it is registered let local peers map it. */
  allocate(length: number): ArrayBuffer;
  /**
   * A file's range, `offset` at a page's start, as memory that everybody who maps it reads and writes. The descriptor may be closed
   * then. An access to what the file's owner cuts off later ends the process.
   */
  mapFile(fd: number, offset: number, length: number): ArrayBuffer;
  /** Lets the allocator keep up to `bytes` of freed memory. False where it cannot be told. */
  keepFreedMemory(bytes: number): boolean;
  /** Tells V8's collector of so many more bytes outside its heap, or less; what it counts then. */
  adjustExternalMemory(change: number): number;
  /** Which instructions the checksum uses: "vpclmul512", "vpclmul256", "pclmul", "pmull", "table". */
  readonly checksum: string;
  /** What the machine lets a process do, found out by doing it (native/topology/features.h). Some milliseconds. */
  probe(): NativeFeature[];
  /** Of the package that it was built in. */
  readonly version: string;
  /** INTERFACE, as it was when it was built. */
  readonly interface: number;
}
