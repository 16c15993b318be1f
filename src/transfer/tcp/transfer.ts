/**
 * Transfer between processes over TCP. It listens on one port; each peer is one connection, over which both sides serve and
 * call, and move bytes where the accelerator (accelerator.ts) does not. `connect` opens a connection of its own and keeps it for later calls: an address is never taken
 * from what a stranger claims in its hello.
 */
import { createServer, type Server } from 'node:net';
import { boolean, integer, options as optionsOf, string } from '../../core/check.js';
import { errors, MooncakeError } from '../../core/errors.js';
import { listening } from '../../listening.js';
import { TransferBase, TransferCore, type TransferOptions } from '../base.js';
import type { DeviceMemory } from '../engine/api.js';
import { isDeviceMemory } from '../engine/memory.js';
import type { CallLimits, Peer, RegisterOptions } from '../transfer.js';
import { Accelerator } from './accelerator.js';
import { formatAddress, isAddress, parseAddress } from './address.js';
import { type Hello, MAX_FRAME_BYTES, MAX_HEARTBEAT_MS, MIN_FRAME_BYTES } from './hello.js';
import { type PeerSettings, TcpPeer } from './peer.js';
import { acceptSocket, openSocket } from './receiving.js';

export interface TcpTransferOptions extends TransferOptions {
  /** Address or name of the interface to listen on. Default 127.0.0.1. */
  host?: string;
  /** Default 0: one that is free. */
  port?: number;
  /** The host that peers are told, where it is not the one listened on. */
  advertise?: string;
  /** Something is sent to each peer at least so often, in milliseconds. Default 250. */
  heartbeatMs?: number;
  /** A peer that was silent for so long is dead. Default 900. */
  deadAfterMs?: number;
  /** The largest message taken, in bytes. Default 16 MiB. */
  maxFrameBytes?: number;
  /**
   * Moves bytes by the accelerator, through shared memory or a port of its own, where both sides have it and say so. Default
   * true, which does without where it is not there or cannot listen; false: over the one connection alone.
   */
  native?: boolean;
  /** Told why a connection ended that did not end by a goodbye; `address` as far as it is known. */
  onLost?: (reason: MooncakeError, address: string) => void;
}

/** How often silence is measured, at most; so much later than `deadAfterMs` is it seen. */
const TICK_MS = 50;
/** Looks between two heartbeats, at least: where a peer is given little time, a look takes little of it. */
const TICKS_PER_BEAT = 4;

export class TcpTransfer extends TransferBase {
  readonly address: string;
  readonly #server: Server;
  readonly #settings: PeerSettings;
  /** All connections. */
  readonly #peers = new Set<TcpPeer>();
  /** Those that we opened, by address. */
  readonly #opened = new Map<string, TcpPeer>();
  readonly #timer: NodeJS.Timeout;

  readonly #accelerator?: Accelerator;

  private constructor(
    server: Server,
    core: TransferCore,
    hello: Hello,
    options: TcpTransferOptions,
    accelerator: Accelerator | undefined,
  ) {
    super(core);
    this.#accelerator = accelerator;
    this.address = hello.address;
    this.#server = server;
    this.#settings = {
      core,
      hello,
      accelerator,
      deadAfterMs: options.deadAfterMs ?? 900,
      onEnd: (peer, reason) => {
        this.#peers.delete(peer);
        if (this.#opened.get(peer.address) === peer) this.#opened.delete(peer.address);
        if (reason.code !== 'ERR_CLOSED') options.onLost?.(reason, peer.address);
      },
    };
    server.on('connection', (accepted) => {
      const socket = acceptSocket(accepted, (bytes) => peer.receive(bytes));
      const peer = new TcpPeer(this.#settings, socket);
      this.#peers.add(peer);
    });
    let last = performance.now();
    const tickMs = Math.min(TICK_MS, Math.floor(hello.heartbeatMs / TICKS_PER_BEAT));
    this.#timer = setInterval(() => {
      const now = performance.now();
      const elapsed = Math.min(now - last, 2 * tickMs);
      last = now;
      for (const peer of this.#peers) peer.tick(elapsed, tickMs);
    }, tickMs).unref();
  }

  /**
   * Listens, and resolves when peers may connect.
   * @throws ERR_INVALID_ARGUMENT, and ERR_PEER where the port cannot be had
   */
  static async listen(options?: TcpTransferOptions): Promise<TcpTransfer> {
    const given = optionsOf('options', options);
    const host = string('options.host', given.host ?? '127.0.0.1');
    const port = integer('options.port', given.port ?? 0, 0, 65535);
    const advertise = string('options.advertise', given.advertise ?? host);
    if (!isAddress(formatAddress({ host: advertise, port: 1 }))) {
      throw errors.invalidArgument('options.advertise', advertise, 'the name or address of a host');
    }
    const heartbeatMs = integer('options.heartbeatMs', given.heartbeatMs ?? 250, 10, MAX_HEARTBEAT_MS);
    integer('options.deadAfterMs', given.deadAfterMs ?? 900, 2 * heartbeatMs, 2 ** 31 - 1);
    const maxFrameBytes = given.maxFrameBytes ?? 16 * 2 ** 20;
    integer('options.maxFrameBytes', maxFrameBytes, MIN_FRAME_BYTES, MAX_FRAME_BYTES);
    if (given.onLost !== undefined && typeof given.onLost !== 'function') {
      throw errors.invalidArgument('options.onLost', given.onLost, 'a function');
    }
    const native = given.native === undefined || boolean('options.native', given.native);
    const core = new TransferCore(given);
    const server = createServer({ pauseOnConnect: true });
    const actual = await listening(server, host, port);
    const address = formatAddress({ host: advertise, port: actual });
    const hello: Hello = { generation: core.generation, address, maxFrameBytes, heartbeatMs };
    let accelerator: Accelerator | undefined;
    try {
      if (native) accelerator = await Accelerator.open(host, advertise, core.segments);
    } catch (error) {
      // Whoever did not ask for it gets what there is.
      if (given.native || !(error instanceof MooncakeError)) {
        server.close();
        throw error;
      }
    }
    if (accelerator) hello.engine = accelerator.hello;
    return new TcpTransfer(server, core, hello, given, accelerator);
  }

  override register(memory: Uint8Array | DeviceMemory, options?: RegisterOptions): number {
    const segment = super.register(memory, options);
    if (isDeviceMemory(memory)) return segment;
    this.#accelerator?.register(segment, memory, options?.access !== 'read');
    return segment;
  }

  override async unregister(segment: number): Promise<void> {
    const released = super.unregister(segment);
    await Promise.all([released, this.#accelerator?.unregister(segment)]);
  }

  async connect(address: string, limits?: CallLimits): Promise<Peer> {
    this.checkOpen();
    const place = parseAddress(address);
    const checked = this.core.limits(limits);
    const key = formatAddress(place);
    let peer = this.#opened.get(key);
    if (!peer) {
      const socket = openSocket(place, (bytes) => opening.receive(bytes));
      const opening = new TcpPeer(this.#settings, socket, key);
      peer = opening;
      this.#opened.set(key, peer);
      this.#peers.add(peer);
    }
    return peer.opened(checked);
  }

  protected async disconnect(): Promise<void> {
    clearInterval(this.#timer);
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#peers].map((peer) => peer.close()));
    await this.#accelerator?.close();
    await stopped;
  }
}
