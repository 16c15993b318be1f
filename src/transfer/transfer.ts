/**
 * How bytes move between registered memories: the small interface that stores and connectors are written against. An
 * implementation (`LocalTransfer` within a process, `TcpTransfer` between processes, native transports later) knows
 * addresses; everybody above knows segments and offsets.
 *
 * A process (or a rank) has one `Transfer` for each way it can be reached. It registers memory as segments, opens peers
 * by address, and hands them batches of descriptors; between the same two ends go small requests, by which stores and
 * connectors agree on what to move. Every operation has a deadline, every peer a generation: one that was restarted on
 * the same address is never mistaken for the old one.
 */
import type { Descriptors } from '../core/descriptors.js';
import type { MooncakeError } from '../core/errors.js';
import type { DeviceMemory } from './engine/api.js';

/** Which bytes the receiver checks against the sender's CRC-64: all, one batch in N, or none. */
export type Verify = 'full' | 'off' | { readonly sampled: number };

export interface CallLimits {
  /** Gives up when aborted: ERR_ABORTED. */
  signal?: AbortSignal;
  /** Gives up after so many milliseconds: ERR_TIMEOUT. The default is the transfer's. */
  timeoutMs?: number;
}

export interface MoveOptions extends CallLimits {
  /** Default: the transfer's, which is `full`. */
  verify?: Verify;
  /** For copies that name memory of a GPU in every record (docs/gpu.md). */
  gpu?: GpuOrder;
}

/** What a copy with memory of GPUs waits for, and whose heads it splits or joins. */
export interface GpuOrder {
  /** Events (`openEvent`) that are over before a byte is read. */
  waitFor?: readonly number[];
  /** Events, of one GPU, that are recorded behind the copy. One that fails may leave them as they were. */
  record?: readonly number[];
  /** Each record stands for `count` runs of its length, so many bytes apart at either side. */
  rows?: { count: number; sourceStride: number; destinationStride: number };
}

export interface MoveReport {
  /** Bytes moved. */
  bytes: number;
  /** Bytes whose checksum was compared. */
  verifiedBytes: number;
  milliseconds: number;
}

/** A peer's memory, as the peer registered it. */
export interface RemoteSegment {
  /** The number to use in descriptors for this peer. */
  readonly id: number;
  readonly name: string;
  /** Bytes. */
  readonly length: number;
}

export interface RegisterOptions {
  /** The name by which peers open the segment; unique within the transfer. Default: `segment-ID`. */
  name?: string;
  /** Peers may read it, or write it too. Default `read-write`. */
  access?: 'read' | 'read-write';
}

/** A request that a peer sent: who sent it, and a signal that fires when the peer is gone or has given up. */
export interface RequestContext {
  readonly peer: Peer;
  readonly signal: AbortSignal;
}

/**
 * Answers requests. Messages and answers are plain data: null, booleans, numbers, bigints, strings, Uint8Arrays, arrays and
 * string-keyed objects of these. What the handler throws reaches the caller as a MooncakeError of the same code.
 */
export type RequestHandler = (message: unknown, context: RequestContext) => unknown;

/** The other end of a connection. All methods throw ERR_PEER when it is gone, ERR_TIMEOUT, ERR_ABORTED, ERR_CLOSED. */
export interface Peer {
  /** The address that it was opened by, or that it says it has. */
  readonly address: string;
  /** Differs between two runs of a process that share an address. 16 hex digits. */
  readonly generation: string;
  /** Known to be on this host: what moves crosses no network. */
  readonly isNear?: boolean;
  /** Resolves once, with the reason, when the peer is gone or `close` was called. */
  readonly closed: Promise<MooncakeError>;

  /** The peer's segment of that name. Throws ERR_SEGMENT where it has none. */
  segment(name: string, limits?: CallLimits): Promise<RemoteSegment>;

  /**
   * Copies from the peer's segments (source) into ours (destination). Resolves when every byte has arrived and its
   * checksum agrees; after a rejection (ERR_CORRUPT, ERR_SEGMENT, …) the destination bytes are undefined, and none of them is
   * written any more. The destination ranges of a batch must not overlap each other, nor what the batch reads: a verified
   * move of such a batch may fail with ERR_CORRUPT.
   */
  read(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;

  /**
   * Copies from our segments (source) into the peer's (destination); resolves when the peer has applied and checked it. A
   * rejection comes when the peer has stopped writing or is lost.
   */
  write(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;

  /** Sends a request to the handler that the peer serves under `service`. ERR_NOT_SUPPORTED where it serves none. */
  call(service: string, message: unknown, limits?: CallLimits): Promise<unknown>;

  /** Closes the connection, for everybody on both sides who uses it: what is under way ends with ERR_CLOSED. */
  close(): Promise<void>;
}

/** Memory of GPUs among a transfer's segments: moves that touch it go through pinned host memory (docs/gpu.md). */
export interface Devices {
  /** Bytes of the segment; undefined where it is no GPU's. */
  length(segment: number): number | undefined;
  /** Whether a descriptor has memory of a GPU on that side. */
  touches(descriptors: Descriptors, side: 'source' | 'destination'): boolean;
  /**
   * Moves what the descriptors say by `carry`, which gets descriptors that name host memory of the transfer in place of
   * GPUs', several at a time. Throws what it throws, and what copies with GPUs do, when nothing is under way any more.
   */
  stage(
    descriptors: Descriptors,
    side: 'source' | 'destination',
    limits: { signal?: AbortSignal; timeoutMs: number },
    carry: (
      descriptors: Descriptors,
      limits: { signal?: AbortSignal; timeoutMs: number },
    ) => Promise<MoveReport | undefined>,
  ): Promise<MoveReport>;
}

export interface Transfer {
  /** Where peers reach this one: `local:NAME`, `tcp://127.0.0.1:4711`. */
  readonly address: string;
  readonly generation: string;

  /**
   * Registers memory; the segment's number (u32) for descriptors. The same bytes registered twice are two segments. Throws
   * ERR_INVALID_ARGUMENT for an empty array and for memory that is detached or over a resizable ArrayBuffer. That memory
   * will be detached cannot be seen (a WebAssembly.Memory that grows, a transfer to a worker): moves that touch it then
   * throw ERR_SEGMENT. Shared memory is allowed.
   *
   * Memory of a GPU (`DeviceMemory`) is for moves that this side begins, and for `copy`; peers do not see it. ERR_NOT_SUPPORTED
   * where there is no accelerator, driver or GPU.
   */
  register(memory: Uint8Array | DeviceMemory, options?: RegisterOptions): number;

  /** Of GPUs; undefined where it takes none. */
  readonly devices?: Devices;

  /** Takes a segment away: new moves that touch it fail at once, the promise resolves when those under way have ended. */
  unregister(segment: number): Promise<void>;

  /** The registered memory, for whoever shares the process. Throws ERR_SEGMENT, also for memory of a GPU. */
  memory(segment: number): Uint8Array;

  /** Opens a peer, or returns the open one. Throws ERR_PEER where nothing answers. Its own address is a peer like any other. */
  connect(address: string, limits?: CallLimits): Promise<Peer>;

  /** Copies between segments of this transfer: source and destination are both ours. */
  copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport>;

  /** Serves requests under a name, until the returned function is called. One handler a name. */
  serve(service: string, handler: RequestHandler): () => void;

  /** Refuses new work, ends what is under way (ERR_CLOSED on both sides), closes sockets. Idempotent. */
  close(): Promise<void>;
}
