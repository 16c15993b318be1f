/**
 * What moves the bytes of a TransferEngine: the accelerator (native-plane.ts) or TypeScript (portable-plane.ts). The engine
 * above has names, metadata and handshakes; a plane has memory, listeners, peers by number, and batches.
 */
import type { Endpoint } from '../../native/addon.js';
import type { DataPort, RdmaDevice, SegmentKeys } from '../metadata/descriptor.js';
import type { Move } from '../move-options.js';
import type {
  DescriptorKind,
  DeviceDescriptor,
  DeviceMemory,
  DmaBuf,
  EngineStatistics,
  ForeignMemory,
  TransferBatch,
} from './api.js';

export type Operation = 'read' | 'write' | 'copy';

export interface PlaneMemory {
  id: number;
  memory: Uint8Array;
  address: bigint;
}

export interface ListenPlace {
  host: string;
  /** 0: one that is free. */
  port: number;
  /** The host that peers are told. */
  advertise: string;
}

export interface PlaneListener {
  port: number;
  /** How our own peers reach this plane. */
  endpoints: Endpoint[];
  /** The NICs that it has open. */
  devices: RdmaDevice[];
}

export interface RemoteRange {
  id: number;
  address: bigint;
  length: number;
  keys?: SegmentKeys;
  /** Writes to it are refused before they begin. */
  readOnly?: boolean;
}

/** How a peer is reached: by its own endpoints where the plane knows them, else by Mooncake's stream. */
export interface PeerPlaces {
  name: string;
  /** Undefined: no engine of ours. */
  generation?: string;
  endpoints: Endpoint[];
  data?: Required<DataPort>;
  /** NICs of a stock engine, which is called by `server`. */
  rdma?: { server: string; devices: RdmaDevice[] };
}

/** The text that answers a handshake. */
export type AnswerHandshake = (type: number, text: string) => string;

/** The engine's own statistics lack what the plane does not know: its segments. */
export type PlaneStatistics = Omit<EngineStatistics, 'segments'>;

export interface DataPlane {
  /** 16 hex digits. */
  readonly generation: string;
  readonly accelerated: boolean;
  /** One port for handshakes and data. Throws ERR_PEER where it cannot be had. */
  listen(place: ListenPlace): Promise<PlaneListener>;
  allocate(length: number, options: { writable: boolean; hugePages: boolean; numaNode?: number }): PlaneMemory;
  /** `memory` was checked by checkMemory. `movable`: its buffer is not marked, the caller keeps it where it is. */
  register(memory: Uint8Array | ForeignMemory, writable: boolean, movable?: boolean): PlaneMemory;
  /** NICs alone reach it. Throws ERR_NOT_SUPPORTED without the accelerator. */
  registerDmaBuf(memory: Required<DmaBuf>, writable: boolean): PlaneMemory;
  /** Makes a segment reachable by NICs; undefined where there are none. Throws where none of them takes it, or where it `must` be. */
  expose(segment: number, must?: boolean): Promise<SegmentKeys | undefined>;
  openFile(path: string, length: number | undefined, writable: boolean): Promise<{ id: number; length: number }>;
  /** `memory` was checked by checkDevice. */
  registerDevice(memory: DeviceMemory): number;
  allocateDevice(device: string, length: number, exportable?: boolean): number;
  exportDevice(segment: number): { handle: Uint8Array; offset: number };
  exportDescriptor(segment: number, kind: DescriptorKind): DeviceDescriptor;
  createEvent(device: string): number;
  openEvent(device: string, handle: Uint8Array): number;
  exportEvent(event: number): Uint8Array;
  closeEvent(event: number): void;
  unregister(segment: number): Promise<void>;
  openPeer(places: PeerPlaces): number;
  setSegments(peer: number, segments: RemoteRange[]): void;
  closePeer(peer: number): void;
  /** `peer` is of no meaning for copies. Throws what is wrong with the arguments. */
  submit(operation: Operation, peer: number, move: Move): TransferBatch;
  statistics(): PlaneStatistics;
  close(): Promise<void>;
}
