/**
 * The transfer engine: registered memory, peers by their Mooncake segment names, and batches of descriptors moved by the
 * native accelerator (or, where there is none, by TypeScript over TCP: the same wire, slower). It is a Mooncake Transfer
 * Engine to others: they find it by P2P handshake or in a metadata server, read and write its segments, and notify it.
 *
 * `Transfer` (../transfer.ts) is what stores and connectors use; this is what those use who bring their own protocol.
 */
import type { Descriptors } from '../../core/descriptors.js';
import type { Topology } from '../../native/topology.js';
import type { CallLimits, MoveOptions, MoveReport, Verify } from '../transfer.js';

export type { PciDistance, Topology } from '../../native/topology.js';

export interface TransferEngineOptions {
  /** Where segment descriptors are found: `p2p` (default: peers ask each other), or a server: `http:`, `etcd:`, `redis:` (docs). */
  metadata?: 'p2p' | (string & {});
  /** Interface to listen on, and what peers are told unless `advertise` says otherwise. Default 127.0.0.1. IPv6 allowed. */
  host?: string;
  /** One port for handshakes and data. Default 0: one that is free. */
  port?: number;
  advertise?: string;
  /** Transports to use, in no order: `cuda`, `shm`, `rdma`, `tcp`, `file` (local copies always). Default: all that work here. */
  transports?: readonly string[];
  /**
   * What stock engines are told to use to reach this engine, which a descriptor says once: `tcp` (default), or `rdma`, which needs
   * a usable NIC. Engines of ours use the best that both sides have in any case.
   */
  protocol?: 'tcp' | 'rdma';
  /** Which NICs, and how. What it does not say is as Mooncake's variables have it (MC_GID_INDEX, MC_IB_PORT, …; docs/rdma.md). */
  rdma?: RdmaOptions;
  /** TCP streams to each peer of ours. Default 2. */
  streams?: number;
  /**
   * Microseconds for which the accelerator's threads, while small requests come at short intervals, look for the next one
   * before they sleep: on an idle machine a 4 KiB read over TCP takes 25 us in place of 75. Nothing is spent where requests
   * are rare or the machine has one processor. 0: never. Default 50, at most 10,000.
   */
  spinUs?: number;
  /** Deadline of operations that name none. Default 30,000 ms. */
  timeoutMs?: number;
  /**
   * The part of a GPU's multiprocessors that copies may have beside whoever computes on it, 0 to 1. 0: its copy engines do it
   * all, and nothing is verified. Default 0.5.
   */
  gpuShare?: number;
  verify?: Verify;
  /** false: TypeScript over TCP even where the accelerator is there. Default: the accelerator where it loads. */
  native?: boolean;
}

export interface RdmaOptions {
  /** Names, as an array or separated by commas. Default: every device with an active port. */
  devices?: string | readonly string[];
  /** Into the port's table of GIDs. Default: RoCEv2, and of that an IPv4 address, where there is one. */
  gidIndex?: number;
  /**
   * Which NIC gets a slice: the one that will have moved it first by measured bandwidth, or each in turn, so that all carry the
   * same and the slowest sets the pace: for comparison. Default: `predicted`, unless the variable `MC_PATH_ROUNDROBIN` says
   * otherwise.
   */
  links?: 'predicted' | 'round-robin';
  /** Default: the first that is active. */
  port?: number;
  /** Of the IP header of RoCEv2 (DSCP and ECN bits), 0 to 255. Default 0. */
  trafficClass?: number;
}

export interface SegmentOptions {
  /** Unique within the engine. Default: `segment-ID`. */
  name?: string;
  /** Peers may read it, or write it too. Default `read-write`. */
  access?: 'read' | 'read-write';
}

export interface AllocateOptions extends SegmentOptions {
  /** 2 MiB pages where the machine has them. Default true. */
  hugePages?: boolean;
  /** Default: wherever. */
  numaNode?: number;
}

export interface ForeignMemory {
  /** Of an engine or a device in this process; it must stay valid until `unregister` has resolved. */
  address: bigint;
  /** Bytes. */
  length: number;
}

/**
 * Memory of another device that its driver has exported, such as a GPU's (cuMemGetHandleForAddressRange): NICs reach it, the
 * processor and other transports do not. What is moved there is not verified.
 */
export interface DmaBuf {
  kind: 'dma-buf';
  /** The engine keeps a duplicate of it. */
  fd: number;
  /** Bytes; default 0. */
  offset?: number;
  length: number;
  /** The device that has it, as nvidia-smi prints it ("00000000:3B:00.0"): NICs that are near it on PCI are preferred. */
  pci?: string;
}

/**
 * Memory of a GPU: `device` is "cuda:0" or the UUID that nvidia-smi prints. Either an address of this process, or what lies
 * `offset` bytes (default 0) into another process's allocation, by the 64 bytes of its CUDA IPC handle
 * (`cuIpcGetMemHandle`; memory of `cuMemCreate` has none).
 */
export type DeviceMemory = { device: string /** Bytes. */; length: number } & (
  | { address: bigint }
  | { handle: Uint8Array; offset?: number }
  /** What `cuMemExportToShareableHandle` made of memory of cuMemCreate, `size` bytes in all. The descriptor stays the caller's. */
  | { fd: number; size: number; offset?: number }
  /** Several such, one behind the other at their owner: an expandable segment of PyTorch's, say. */
  | { parts: readonly { fd: number; size: number }[]; offset?: number }
  /** 64 bytes, where the GPUs are in one NVLink domain. */
  | { fabric: Uint8Array; size: number; offset?: number }
);

export type DescriptorKind = 'cuda-vmm-fd' | 'dma-buf';

/** A file descriptor for memory of a GPU: the caller closes it. */
export interface DeviceDescriptor {
  fd: number;
  /** Where the segment lies in it, in bytes. */
  offset: number;
  /** Bytes of all that it stands for. */
  size: number;
  /** Of a dma-buf, where the kernel shows it: the GPU's address on PCI, for `DmaBuf.pci`. */
  pci?: string;
}

export interface FileOptions {
  /** Bytes. Default: the file's own. A shorter file is made longer, where it may be written. */
  length?: number;
  /** `read-write`, the default, makes the file where there is none. */
  access?: 'read' | 'read-write';
}

export interface MemorySegment {
  /** For descriptors. Never used twice. */
  readonly id: number;
  readonly name: string;
  /** Empty where an address or a dma-buf was registered. */
  readonly memory: Uint8Array;
  /** What peers on Mooncake's wire use. Without the accelerator a virtual one, of no use within the process. */
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
}

/** One buffer of a peer. */
export interface PeerSegment {
  /** For descriptors to this peer. */
  readonly id: number;
  readonly name: string;
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
  /** Its owner registered it for reading: writes throw ERR_SEGMENT. Mooncake's engines do not say. */
  readonly readOnly?: boolean;
}

/** A peer that was opened by its segment name. */
export interface EnginePeer {
  /** "host:port", as Mooncake names segments. */
  readonly name: string;
  /** 16 hex digits for engines of ours, undefined for others. */
  readonly generation?: string;
  /** What it has registered, as of the last `refresh`. */
  readonly segments: readonly PeerSegment[];
  /** The segment in which [address, address + length) lies. Throws ERR_SEGMENT. */
  at(address: bigint, length: number): { segment: number; offset: number };
  /**
   * Asks for its descriptor again: segments registered since, or another run on the same name. Moves with a run that is
   * over throw ERR_PEER until then.
   */
  refresh(limits?: CallLimits): Promise<void>;
  /** For everybody who has opened it: what is under way ends with ERR_CLOSED. */
  close(): void;
}

/** A batch on its way. */
export interface TransferBatch {
  /** Resolves when every byte has arrived and was verified; after a rejection nothing is written any more. */
  readonly done: Promise<MoveReport>;
  cancel(): void;
}

export interface Notification {
  name: string;
  message: string;
}

/** One path to a peer, with what it has carried. */
export interface LinkStatistics {
  peer: string;
  transport: string;
  name: string;
  alive: boolean;
  /** What it does, or why it is not alive. */
  detail: string;
  slices: number;
  bytes: number;
  failures: number;
  inFlightBytes: number;
  /** Bytes per second, measured, weighted to the recent. */
  bandwidth: number;
}

export interface EngineStatistics {
  links: LinkStatistics[];
  /** Per transport: whether it can be used here, and what was found or why not. */
  transports: { name: string; usable: boolean; detail: string }[];
  batches: { active: number; completed: number; failed: number };
  segments: { count: number; bytes: number };
}

export interface TransferEngineApi {
  /** How others open it. */
  readonly name: string;
  readonly generation: string;
  /** false: TypeScript moves the bytes; `why` says what was tried. */
  readonly accelerated: boolean;
  readonly why?: string;
  allocate(length: number, options?: AllocateOptions): Promise<MemorySegment>;
  /**
   * Registers memory that is there: a Buffer, a view over a SharedArrayBuffer, or an address. The engine keeps a reference
   * until `unregister` has resolved. Throws ERR_INVALID_ARGUMENT for views over a WebAssembly.Memory (they detach when
   * it grows), for detached or resizable buffers, and for addresses without the accelerator. With it the buffer is marked
   * as untransferable for good; nobody may call `transfer` of its ArrayBuffer, which asks no mark, while it is registered.
   * A dma-buf throws ERR_NOT_SUPPORTED where no NIC in use takes it.
   */
  register(memory: Uint8Array | ForeignMemory | DmaBuf, options?: SegmentOptions): Promise<MemorySegment>;
  /** A file as a segment, for the disk tier: `copy` moves to and from it, peers do not see it. */
  openFile(path: string, options?: FileOptions): Promise<{ id: number; length: number }>;

  /**
   * Memory of a GPU on this host, as a segment for `copy`: to and from host memory, which is pinned when it is first copied,
   * and other memory of GPUs; and for this side of reads and writes, by way of pinned host memory. Scattered pieces cost what
   * one piece costs. Peers do not reach it. What its owner writes must be complete before it is copied (its stream
   * synchronized, or an event of it named in `MoveOptions.gpu`), and the owner must outlive the registration of a handle.
   * @throws ERR_NOT_SUPPORTED without accelerator, driver or GPU; ERR_INVALID_ARGUMENT for memory or a handle that is not
   * the GPU's; ERR_OUT_OF_MEMORY where its memory is full
   */
  registerDevice(memory: DeviceMemory): Promise<{ id: number; length: number }>;
  /** Memory of our own on a GPU; not zeroed. */
  allocateDevice(
    device: string,
    length: number,
    options?: {
      /** Memory of cuMemCreate, which `exportDescriptor` hands over; default: of cuMemAlloc, which has a handle. */
      exportable?: boolean;
    },
  ): Promise<{ id: number; length: number }>;
  /** What other processes register a GPU's segment by, as `handle` and `offset`. They must unregister it first. */
  exportDevice(segment: number): { handle: Uint8Array; offset: number };
  /**
   * `cuda-vmm-fd`: what other processes register memory of cuMemCreate by. `dma-buf`: what NICs register.
   * @throws ERR_INVALID_ARGUMENT for memory that cuMemCreate did not make; ERR_NOT_SUPPORTED where the GPU has no dma-buf
   */
  exportDescriptor(segment: number, kind: DescriptorKind): DeviceDescriptor;
  /** An event that other processes may open by `exportEvent`; a number for `MoveOptions.gpu`. */
  createEvent(device: string): number;
  /** Another process's event, by the 64 bytes of `cuIpcGetEventHandle`. Throws ERR_INVALID_ARGUMENT for what is none. */
  openEvent(device: string, handle: Uint8Array): number;
  exportEvent(event: number): Uint8Array;
  /** Copies under way keep it until they end. */
  closeEvent(event: number): void;
  /** Resolves when nothing touches the memory any more. */
  unregister(segment: number, limits?: CallLimits): Promise<void>;
  /** Opens a peer, or returns the open one, refreshed. Throws ERR_PEER where there is none of that name. */
  open(name: string, limits?: CallLimits): Promise<EnginePeer>;
  submit(op: 'read' | 'write', peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): TransferBatch;
  read(peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;
  write(peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;
  /** Between segments of this engine, files among them. */
  copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;
  notify(name: string, notification: Notification, limits?: CallLimits): Promise<void>;
  /** Notifications that come in, and to the first listener those that came before it. The returned function ends it. */
  onNotification(listener: (notification: Notification) => void): () => void;
  /** Whether an engine answers there. */
  probe(name: string, limits?: CallLimits): Promise<boolean>;
  topology(): Topology;
  statistics(): EngineStatistics;
  close(): Promise<void>;
}
