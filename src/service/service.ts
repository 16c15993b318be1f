/**
 * The node service: one process per host, to which inference engines attach by two Unix sockets (docs/service.md). It hosts both
 * halves of their connectors and owns connections, registrations and the memory that engines hand over; an engine's process
 * runs nothing but the client of this protocol.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { options as optionsOf, string } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { DescriptorSocket } from '../native/addon.js';
import { loadAddon } from '../native/load.js';
import type { ObjectStore } from '../store/api.js';
import type { Transfer } from '../transfer/transfer.js';
import { BootstrapTransfer } from './bootstrap-client.js';
import { BootstrapServers } from './bootstrap-server.js';
import { Caller } from './caller.js';
import { Connection, type ConnectionCounters } from './connection.js';
import { type EngineEvent, Engines } from './engines.js';
import { GpuEvents } from './gpu-events.js';
import { operations } from './operations.js';
import { claimSocket, DESCRIPTOR_SUFFIX, defaultSocket } from './paths.js';
import { type ServiceStatus, statusOf } from './status.js';

export interface NodeServiceOptions {
  /** Path of the control socket. Default: MOONCAKE_TS_SERVICE, or service.sock in a folder of the user's. */
  socket?: string;
  /** Where engines share prefixes. Default: nowhere. It stays the caller's to close. */
  store?: ObjectStore;
  /** How engines of other hosts reach those of this one for hand-overs. It stays the caller's to close. */
  transfer: Transfer;
  /** Address on which routers may ask for prefill engines, at the ports that these name. Default 127.0.0.1. */
  bootstrapHost?: string;
  /** Told what happens to engines. */
  onEvent?: (event: EngineEvent) => void;
  /** Told of errors that no engine waits for. */
  onError?: (error: unknown) => void;
}

const version = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version as string;

export class NodeService {
  /** The control socket. */
  readonly socket: string;
  /** Differs between two runs of a service. 16 hex digits. */
  readonly instance = randomBytes(8).toString('hex');
  readonly #options: NodeServiceOptions;
  readonly #server: Server;
  readonly #engines: Engines;
  readonly #descriptors: DescriptorSocket | undefined;
  readonly #events: GpuEvents | undefined;
  readonly #connections = new Set<Connection>();
  readonly #counters: ConnectionCounters = { calls: 0, failedCalls: 0, badFrames: 0 };
  readonly #started = performance.now();
  #refused = 0;
  #closing: Promise<void> | undefined;

  private constructor(socket: string, options: NodeServiceOptions) {
    this.socket = socket;
    this.#options = options;
    const { addon } = loadAddon();
    if (addon !== undefined) {
      this.#descriptors = openDescriptors(socket);
      this.#events = new GpuEvents(addon);
    }
    this.#engines = new Engines({
      store: options.store,
      transfer: new BootstrapTransfer(options.transfer),
      bootstrap: new BootstrapServers(options.bootstrapHost ?? '127.0.0.1', options.transfer.address),
      instance: this.instance,
      memory: addon && { addon, socket: this.#descriptors!, events: this.#events! },
      onEvent: (event) => options.onEvent?.(event),
    });
    const descriptors = this.#descriptors ? socket + DESCRIPTOR_SUFFIX : null;
    const calls = operations({ version, instance: this.instance, descriptors }, () => this.status());
    // Half-open: a client that ends its side hears of our end when nothing of its memory is touched any more.
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      const pid = this.#admit(client);
      if (pid === undefined) return;
      const connection = new Connection(client, {
        caller: new Caller(this.#engines, pid),
        operations: calls,
        counters: this.#counters,
        onFailure: (error) => options.onError?.(error),
        onClosed: (one) => this.#connections.delete(one),
      });
      this.#connections.add(connection);
    });
  }

  /**
   * Listens, and resolves when engines may attach.
   * @throws ERR_INVALID_ARGUMENT naming the option, also where another service listens on the socket
   */
  static async start(options: NodeServiceOptions): Promise<NodeService> {
    const given = optionsOf('options', options);
    if (typeof given.transfer !== 'object' || given.transfer === null) {
      throw errors.invalidArgument('transfer', given.transfer, 'a Transfer');
    }
    const path = await claimSocket(string('socket', given.socket ?? defaultSocket()));
    const service = new NodeService(path, given);
    try {
      await service.#listen();
    } catch (error) {
      await service.close();
      throw error;
    }
    return service;
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      // For good, as in listening.ts: connections that cannot be accepted later must not end the process.
      this.#server.on('error', (cause) => {
        reject(errors.invalidArgument('socket', this.socket, `a path that can be listened on (${cause.message})`));
      });
      // Node makes the file within this call.
      const mask = process.umask(0o177);
      try {
        this.#server.listen(this.socket, () => {
          chmodSync(this.socket, 0o600);
          resolve();
        });
      } finally {
        process.umask(mask);
      }
    });
  }

  /** The client's process; undefined where it was sent away, being another user's. 0: nobody can say. */
  #admit(client: Socket): number | undefined {
    const { addon } = loadAddon();
    // Node has no call for it; the descriptor is where it has been since its sockets have handles.
    const fd = (client as Socket & { _handle?: { fd?: number } | null })._handle?.fd;
    if (addon === undefined || fd === undefined || fd < 0) return 0;
    const { pid, uid } = addon.peerCredentials(fd);
    if (uid === process.geteuid?.() || uid === 0) return pid;
    this.#refused++;
    this.#options.onError?.(errors.peer(`process ${pid}`, `belongs to user ${uid}, who has no business here`));
    client.destroy();
    return undefined;
  }

  status(): ServiceStatus {
    return statusOf({
      instance: this.instance,
      version,
      socket: this.socket,
      seconds: (performance.now() - this.#started) / 1000,
      connections: this.#connections.size,
      refusedConnections: this.#refused,
      descriptorsWaiting: this.#descriptors?.waiting ?? 0,
      counters: this.#counters,
      engines: this.#engines.all,
    });
  }

  /** Ends every engine's sessions, then their connections; resolves when no memory of theirs is touched. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // Each takes its file along at once, this one first: whoever finds the control socket gone makes both anew, and those are
    // not ours to remove.
    this.#descriptors?.close();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#engines.close();
    await this.#events?.close();
    await Promise.all([...this.#connections].map((connection) => connection.end('the service stops')));
    if (this.#server.listening || this.#connections.size > 0) await closed;
  }
}

function openDescriptors(socket: string): DescriptorSocket {
  const { addon } = loadAddon();
  const path = socket + DESCRIPTOR_SUFFIX;
  try {
    return new addon!.DescriptorSocket(path, {});
  } catch (cause) {
    throw new MooncakeError('ERR_INVALID_ARGUMENT', `socket ${path}: ${(cause as Error).message}`, {
      argument: 'socket',
      cause,
    });
  }
}
