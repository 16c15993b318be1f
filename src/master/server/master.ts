/**
 * The networked master: the metadata service behind Mooncake's RPC, the HTTP endpoints of the stock master, and the HTTP metadata
 * server where it is wanted. Stock clients join it unchanged.
 *
 *   RpcServer ─► object-, segment-, disk-, task-, other-calls ─► Lending ─► MetadataService
 *   HTTP      ─► admin (metrics port) · MetadataServer (metadata port)
 */
import { createServer, type Server } from 'node:http';
import { integer, options as optionsOf, string } from '../../core/check.js';
import { listening } from '../../listening.js';
import { ProcessFigures } from '../../metrics/process.js';
import { type Refusal, RpcServer } from '../../rpc/server.js';
import { MetadataServer } from '../../transfer/metadata/server.js';
import { Drains } from '../drain.js';
import type { MetadataOptions } from '../options.js';
import { Persistence, type PersistenceEvent } from '../persist/persistence.js';
import { MetadataService } from '../service.js';
import { TaskRequests } from '../task-requests.js';
import { type TaskOptions, TaskQueue } from '../tasks.js';
import { admin, send } from './admin.js';
import { serveDisks } from './disk-calls.js';
import { Lending, type LendingEvent } from './lending.js';
import type { MasterFigures } from './metrics.js';
import { CallFigures } from './metrics-calls.js';
import { serveObjects } from './object-calls.js';
import { serveOthers } from './other-calls.js';
import { serveSegments } from './segment-calls.js';
import { serveTasks } from './task-calls.js';

export type MasterEvent = LendingEvent | PersistenceEvent | ({ what: 'request-refused' } & Refusal);

export interface MooncakeMasterOptions extends MetadataOptions, TaskOptions {
  /** Address of the RPC port. Default 127.0.0.1. */
  host?: string;
  /** RPC. Default 50051; 0: one that is free. */
  port?: number;
  /** HTTP of the master (metrics, health, queries). Default 9003; 0: one that is free; undefined with `admin: false`. */
  adminPort?: number;
  /** Default the RPC's. */
  adminHost?: string;
  /** Default true. */
  admin?: boolean;
  /** The HTTP metadata server. Default: none. */
  metadataPort?: number;
  /** Default the RPC's. */
  metadataHost?: string;
  /** Silence after which a client, and all that it lends, is gone. Default 10,000 ms. */
  clientTtlMs?: number;
  /** A folder in which state outlives this process (docs/persistence.md). Default: none does. */
  dataDir?: string;
  /** Longest time between two snapshots, ms. Default 600,000. */
  snapshotIntervalMs?: number;
  /** Snapshots that are kept. Default 2. */
  snapshotRetention?: number;
  /** Told what a person should know. */
  onEvent?: (event: MasterEvent) => void;
}

const SWEEP_MS = 1000;
const DRAIN_MS = 500;

/** Calls that change nothing that must outlive the process: they wait for no disk. All others do. */
const READS: ReadonlySet<string> = new Set([
  'BatchExistKey',
  'BatchGetReplicaList',
  'BatchQueryIp',
  'ExistKey',
  'GetAllNoFSegments',
  'GetFsdir',
  'GetNoFSegmentsByName',
  'GetReplicaList',
  'GetReplicaListByRegex',
  'GetStorageConfig',
  'Ping',
  'QuerySegmentStatus',
  'QuerySegmentStatusById',
  'QueryTask',
  'ServiceReady',
]);

export class MooncakeMaster {
  readonly service: MetadataService;
  readonly #rpc: RpcServer;
  readonly #lending: Lending;
  readonly #tasks: TaskQueue;
  readonly #drains: Drains;
  readonly #options: MooncakeMasterOptions;
  readonly #persistence?: Persistence;
  readonly #calls = new CallFigures();
  readonly #process: ProcessFigures;
  #admin?: Server;
  #metadata?: MetadataServer;
  #sweeping?: NodeJS.Timeout;
  #draining?: NodeJS.Timeout;
  #ports = { rpc: 0, admin: 0, metadata: 0 };

  private constructor(options: MooncakeMasterOptions, persistence?: Persistence) {
    this.#options = options;
    this.#persistence = persistence;
    this.service = persistence?.service ?? new MetadataService(options);
    const leaseTtlMs = options.leaseTtlMs ?? 10_000;
    const onEvent = options.onEvent ?? (() => {});
    const now = options.now ?? (() => performance.now());
    this.#tasks = new TaskQueue(now, options);
    const requests = new TaskRequests(this.service, this.#tasks, options.random ?? Math.random);
    this.#drains = new Drains(this.service, this.#tasks, requests);
    this.#lending = new Lending(this.service, {
      clientTtlMs: integer('options.clientTtlMs', options.clientTtlMs ?? 10_000, 1, 2 ** 31 - 1),
      offload: options.offload ?? false,
      fenceMs: leaseTtlMs,
      now,
      onLost: (client) => {
        this.service.copies.forget(client);
        this.#tasks.forget(client);
      },
      onEvent,
    });
    this.#rpc = new RpcServer({
      host: string('options.host', options.host ?? '127.0.0.1'),
      port: integer('options.port', options.port ?? 50051, 0, 65535),
      onCall: this.#calls.observe.bind(this.#calls),
      onRefused: (refusal) => onEvent({ what: 'request-refused', ...refusal }),
      gate: persistence && {
        enter: (method) => (READS.has(method) ? undefined : persistence.enter()),
        settled: (method) => (READS.has(method) ? undefined : persistence.settled()),
      },
    });
    serveObjects(this.#rpc, this.service, this.#lending.bases);
    serveSegments(this.#rpc, this.#lending);
    serveDisks(this.#rpc, this.service, this.#lending);
    serveOthers(this.#rpc);
    const { service } = this;
    serveTasks(this.#rpc, { service, bases: this.#lending.bases, tasks: this.#tasks, requests });
    // Last: it measures from now on, and what throws above must leave nothing running.
    this.#process = new ProcessFigures();
  }

  /** Serves until `close`. Throws ERR_PEER where a port cannot be had, ERR_DATA_DIR, ERR_INVALID_ARGUMENT. */
  static async listen(options: MooncakeMasterOptions = {}): Promise<MooncakeMaster> {
    const { dataDir, snapshotIntervalMs, snapshotRetention, onEvent } = optionsOf('options', options);
    const persistence =
      dataDir === undefined
        ? undefined
        : await Persistence.open({ dataDir, snapshotIntervalMs, snapshotRetention, onEvent }, options);
    let master: MooncakeMaster | undefined;
    try {
      master = new MooncakeMaster(options, persistence);
      await master.#listen();
    } catch (error) {
      await (master ?? persistence)?.close();
      throw error;
    }
    return master;
  }

  /** Ports listened on; 0 for what is not served. */
  get ports(): Readonly<{ rpc: number; admin: number; metadata: number }> {
    return this.#ports;
  }

  figures(): MasterFigures {
    return {
      stats: this.service.stats(),
      requests: this.#rpc.stats,
      clients: this.#lending.clients,
      activeClients: this.#lending.activeClients,
      segments: this.service.segments(),
      calls: this.#calls,
      process: this.#process,
      persistence: this.#persistence?.figures(),
    };
  }

  /** Closes ports and connections, and writes a last snapshot where state is kept. Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    clearInterval(this.#draining);
    this.#process.close();
    const http = this.#admin;
    this.#admin = undefined;
    http?.closeAllConnections();
    await Promise.all([
      this.#rpc.close(),
      this.#metadata?.close(),
      http?.listening ? new Promise<void>((resolve) => http.close(() => resolve())) : undefined,
    ]);
    await this.#persistence?.close();
  }

  async #listen(): Promise<void> {
    const { host = '127.0.0.1', adminHost = host, metadataHost = host, metadataPort } = this.#options;
    this.#ports.rpc = await this.#rpc.listen();
    if (this.#options.admin !== false) {
      this.#ports.admin = await this.#serveAdmin(
        adminHost,
        integer('options.adminPort', this.#options.adminPort ?? 9003, 0, 65535),
      );
    }
    if (metadataPort !== undefined) {
      this.#metadata = await MetadataServer.listen({ host: metadataHost, port: metadataPort });
      this.#ports.metadata = Number(new URL(this.#metadata.url).port);
    }
    this.#sweeping = setInterval(() => {
      this.#lending.sweep();
      this.#tasks.expire();
    }, SWEEP_MS);
    this.#draining = setInterval(() => this.#drains.tick(), DRAIN_MS);
  }

  #serveAdmin(host: string, port: number): Promise<number> {
    const { service } = this;
    const sources = { service, bases: this.#lending.bases, drains: this.#drains, figures: () => this.figures() };
    const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
      admin(request, sources).then(
        (answer) => send(response, answer),
        (error: Error) =>
          send(response, { status: 500, type: 'text/plain; charset=utf-8', body: `${error.message}\n` }),
      );
    });
    this.#admin = server;
    return listening(server, host, port);
  }
}
