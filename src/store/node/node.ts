/**
 * A store node: a process that lends memory to a Mooncake cluster and serves the stock store service's REST API.
 *
 *   HTTP      ─► objects, segments, health ─► MooncakeStore (joined) ─► master, peers
 *   processes ─► door ────── metadata ──────────┘      └─ its segments: peers and processes of this host read and write
 *                                                         them without the node's doing
 */
import { totalmem } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { integer, options as optionsOf, string } from '../../core/check.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { Uuid } from '../../master/api.js';
import { formatName } from '../../transfer/metadata/name.js';
import { JoinedCluster } from '../joined/cluster.js';
import { type ConnectOptions, resolveJoin, withConfiguration } from '../joined/options.js';
import { parseSize } from '../size.js';
import { MooncakeStore, storeParts } from '../store.js';
import { type DoorOptions, NodeDoor } from './door.js';
import { HttpServer, json, type Routes, text } from './http.js';
import { type FileRange, MappedRanges, mapRange } from './mapped.js';
import { metrics, type NodeStatus } from './metrics.js';
import { objectRoutes } from './objects.js';
import { SegmentApi } from './segments.js';
import { SharedSegmentApi } from './shared-segments.js';

export type { NodeStatus } from './metrics.js';

export interface StoreNodeOptions extends ConnectOptions {
  /** Address of the REST API. Default 127.0.0.1. */
  httpHost?: string;
  /** Its port. Default 8080, as stock; 0: one that is free. */
  httpPort?: number;
  /** The name space of objects of the REST API. Default "default". */
  tenant?: string;
  /** Lets other processes of this host attach (MooncakeStore.attach). Default: none may. */
  serve?: DoorOptions;
  /** Bytes of a request's body, at most. Default 100 MiB, as stock. */
  maxBodyBytes?: number;
}

const MAX_GRACE_MS = 3_600_000;
/** A master that could not be asked. */
const ASK_AGAIN_MS = 1000;
/** For the answers that are under way when the node is closed. */
const DRAIN_MS = 2000;

export class StoreNode {
  /** For use in this process. */
  readonly store: MooncakeStore;
  readonly #cluster: JoinedCluster;
  readonly #master: string;
  readonly #mapped = new MappedRanges();
  #http?: HttpServer;
  #door?: NodeDoor;
  readonly #end = new AbortController();
  #closing?: Promise<void>;

  private constructor(store: MooncakeStore, options: ConnectOptions) {
    const { cluster } = storeParts(store);
    if (!(cluster instanceof JoinedCluster)) throw errors.invalidArgument('store', store, 'one that has joined');
    this.store = store;
    this.#cluster = cluster;
    this.#master = formatName(resolveJoin(options).master);
  }

  /**
   * Joins the cluster, lends its memory and serves.
   * @throws what MooncakeStore.connect throws, and ERR_PEER where the REST API's port cannot be had
   */
  static async start(settings?: StoreNodeOptions): Promise<StoreNode> {
    const given = optionsOf('options', settings);
    const host = string('httpHost', given.httpHost ?? '127.0.0.1');
    const port = integer('httpPort', given.httpPort ?? 8080, 0, 65_535);
    const maxBodyBytes = integer('maxBodyBytes', given.maxBodyBytes ?? 100 * 2 ** 20, 1, 2 ** 31 - 1);
    const tenant = string('tenant', given.tenant ?? 'default');
    const options = await withConfiguration(given);
    checkMemory(options.segments);
    const node = new StoreNode(await MooncakeStore.connect(options), options);
    try {
      if (given.serve) node.#door = await NodeDoor.open(node.#cluster, optionsOf('serve', given.serve));
      node.#http = await HttpServer.listen(node.#routes(tenant), { host, port, maxBodyBytes });
    } catch (error) {
      await node.close();
      throw error;
    }
    return node;
  }

  /** Where the REST API is served: `http://host:port`. */
  get url(): string {
    return this.#http?.url ?? '';
  }

  /** What other processes attach to: `tcp://host:port`. Undefined where none may. */
  get door(): string | undefined {
    return this.#door?.address;
  }

  status(): NodeStatus {
    const { counters } = storeParts(this.store);
    const { puts, existing, failedPuts, bytesPut, hits, bytesGot, verifiedBytes, unverifiedHits } = counters;
    return {
      name: this.#cluster.transfer.address,
      master: this.#master,
      attach: this.door,
      isConnected: this.#cluster.isConnected,
      segments: this.#cluster.lent.map(({ id, name, length }) => ({ id, name, bytes: length })),
      objects: {
        ...{ puts, existing, failedPuts, bytesPut, hits, bytesGot, verifiedBytes, unverifiedHits },
        misses: { ...counters.misses },
      },
      links: this.#cluster.transfer.engine.statistics().links,
      peers: this.#cluster.peers.figures,
    };
  }

  /** Lends more memory, in bytes; the segment's id. */
  async mount(bytes: number): Promise<Uuid> {
    checkMemory(bytes + this.#cluster.lent.reduce((total, { length }) => total + length, 0));
    return this.#cluster.mount({ length: bytes });
  }

  /**
   * Lends memory that another program made, by the path of its file; the segment's id. Its owner must not cut it while it is lent: an
   * access to what is not there any more ends this process. Segments of `instead` that have bytes of it are taken back first.
   * @throws ERR_INVALID_ARGUMENT for what is no file, no page's start or beyond the file's end; ERR_PEER where it cannot be opened;
   *   ERR_SEGMENT where other segments have bytes of it; ERR_NOT_SUPPORTED without the accelerator
   */
  async mountFile(range: FileRange, instead: readonly Uuid[] = []): Promise<Uuid> {
    const mapped = await mapRange(range);
    const inTheWay = this.#mapped.overlapping(mapped);
    for (const { segment } of inTheWay) {
      if (segment === undefined || !instead.includes(segment)) {
        throw errors.segment('path', range.path, `segment ${segment} lends bytes of it already`);
      }
    }
    const lent = this.#mapped.add(mapped);
    try {
      for (const other of inTheWay) {
        await this.#cluster.unmount(other.segment!, 0);
        this.#mapped.delete(other);
      }
      lent.segment = await this.#cluster.mount({ memory: mapped.memory });
      return lent.segment;
    } catch (error) {
      this.#mapped.delete(lent);
      throw error;
    }
  }

  /** Whether the segment is lent, or stays readable for a while. */
  lends(segment: Uuid): boolean {
    return this.#cluster.lent.some(({ id }) => id === segment);
  }

  /**
   * Takes a segment back; resolves when the master knows. What is there stays readable for so long. A master that cannot be asked at the
   * end of that is asked again until it answers: so long the segment stays lent, and is in `status()`.
   */
  async unmount(segment: Uuid, graceMs = 0): Promise<void> {
    const { gone } = await this.#cluster.beginUnmount(segment, integer('graceMs', graceMs, 0, MAX_GRACE_MS));
    gone
      .catch((error) => this.#insist(segment, error))
      .then(
        () => this.#mapped.forget(segment),
        // The node has ended, or the master says that it is another's: it stays lent.
        () => {},
      );
  }

  async #insist(segment: Uuid, failure: unknown): Promise<void> {
    for (let error = failure; this.lends(segment); ) {
      if (!isAway(error)) throw error;
      await pause(ASK_AGAIN_MS, undefined, { ref: false, signal: this.#end.signal });
      try {
        const { gone } = await this.#cluster.beginUnmount(segment, 0);
        await gone;
      } catch (reason) {
        error = reason;
      }
    }
  }

  /** Takes the disk back, where one is lent; resolves when those who were sent to it before have had so long to read. */
  unmountDisk(graceMs = 0): Promise<void> {
    return this.#cluster.unmountDisk(integer('graceMs', graceMs, 0, MAX_GRACE_MS));
  }

  /**
   * Takes all memory back and ends. With a grace nothing new is placed here, and what is here stays readable for so long,
   * or until `signal` is aborted.
   */
  async drain(graceMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.all(this.#cluster.lent.map(({ id }) => this.unmount(id, graceMs)));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, graceMs);
      function done() {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      }
      signal?.addEventListener('abort', done, { once: true });
      if (signal?.aborted) done();
    });
    await this.close();
  }

  /** Ends at once: ports, connections, memory. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#end.abort();
    await this.#http?.close(DRAIN_MS);
    await this.#door?.close();
    await this.store.close();
  }

  #routes(tenant: string): Routes {
    return {
      ...objectRoutes(this.store, tenant),
      ...new SegmentApi(this).routes,
      ...new SharedSegmentApi(this).routes,
      'GET /health': () =>
        this.#cluster.isConnected ? text('OK') : text(`the master at ${this.#master} cannot be reached`, 503),
      'GET /metrics': () => ({ ...text(metrics(this.status())), type: 'text/plain; version=0.0.4; charset=utf-8' }),
      'GET /status': () => ({ ...json({}), body: JSON.stringify(this.status()) }),
    };
  }
}

/** The master has not answered: it may later. */
const isAway = (error: unknown) =>
  error instanceof MooncakeError && (error.code === 'ERR_PEER' || error.code === 'ERR_TIMEOUT');

/**
 * Memory is taken from the kernel when it is used, and what it does not have then ends the process: what it can never
 * have is refused at once.
 */
function checkMemory(segments: ConnectOptions['segments']): void {
  if (segments === undefined || segments === 0 || typeof segments === 'object') return;
  const bytes = parseSize('segments', segments);
  if (bytes > machineBytes()) throw errors.outOfMemory(`segments (this machine has ${machineBytes()} bytes)`, bytes);
}

/** What the machine, or the container that this runs in, has. */
function machineBytes(): number {
  const { constrainedMemory } = process as { constrainedMemory?: () => number | undefined };
  const limit = constrainedMemory?.call(process) || Number.POSITIVE_INFINITY;
  return Math.min(totalmem(), limit);
}
