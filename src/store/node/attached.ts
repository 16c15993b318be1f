/**
 * The cluster of a store that is attached to a node of its host: metadata by requests to the node, bytes by an engine of its own,
 * which maps the node's segments and reaches those of other members as any client does.
 *
 *   put, get ─► NodeSession ─► RemoteMetadata ─► node ─► master
 *                    └─► ClusterPeers ─► EngineTransfer ─► node's memory (shared), peers
 *
 * A session is one connection to the node; when it is lost the next call makes another, and what began on the old one is
 * not believed any more.
 */
import { boolean, integer, options as object, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import type { Keys } from '../../core/keys.js';
import type { Replica, Uuid } from '../../master/api.js';
import { TransferEngine } from '../../transfer/engine/engine.js';
import { EngineTransfer } from '../../transfer/engine-transfer.js';
import { MAX_TIMEOUT_MS } from '../../transfer/limits.js';
import { TcpTransfer } from '../../transfer/tcp/transfer.js';
import type { CallLimits, Peer } from '../../transfer/transfer.js';
import { ClusterPeers, mayLand } from '../joined/peers.js';
import type { IntegrityOptions } from '../options.js';
import { RemoteMetadata } from '../remote.js';
import { Claims, type Place, type Session } from '../session.js';
import { parseSize } from '../size.js';
import { Staging } from '../staging.js';
import { type Hello, SERVICE, unpackHello, VERSION } from '../wire.js';

export interface NodeAttachOptions extends IntegrityOptions {
  /** Where the node lets others attach, `tcp://host:port`: what `mooncake-ts store --serve` prints. */
  node: string;
  /** As MooncakeStore.connect's. */
  localBufferSize?: number | string;
  /** The name space of calls that name none. Default "default". */
  tenant?: string;
  /** false: TypeScript moves the bytes even where the accelerator is there. */
  native?: boolean;
  /** Deadline of calls that name none, in ms. Default 30,000. */
  timeoutMs?: number;
}

const STAGING_BYTES = 2 ** 24;

class NodeSession implements Session {
  readonly client: Uuid;
  readonly claims = new Claims();
  readonly putWindowMs: number;
  readonly #node: Peer;
  readonly #peers: ClusterPeers;
  readonly #limits: CallLimits;
  readonly #lost: () => void;
  #isOver = false;

  /** `lost` is called when the node does not know the client any more. */
  constructor(node: Peer, hello: Hello, peers: ClusterPeers, limits: CallLimits, lost: () => void) {
    this.client = hello.client;
    this.putWindowMs = hello.putReleaseMs / 2;
    this.#node = node;
    this.#peers = peers;
    this.#limits = limits;
    this.#lost = () => {
      this.#isOver = true;
      lost();
    };
    void node.closed.then(this.#lost);
  }

  metadata(limits: CallLimits = this.#limits): RemoteMetadata {
    return new RemoteMetadata(this.#node, this.client, limits, this.#lost);
  }

  place(replica: Replica): Place | Promise<Place> {
    return this.#peers.place(replica);
  }

  rank(replicas: readonly Replica[]): readonly Replica[] {
    return this.#peers.rank(replicas);
  }

  suspect(keys: Keys, _replicas: readonly number[], tenant: string, limits?: CallLimits): Promise<void> {
    return this.metadata(limits).suspect(keys, tenant);
  }

  mayLand(failure: unknown): boolean {
    return mayLand(failure);
  }

  /** The node's leases end with the connection: it may be gone, or the master have forgotten it. */
  now(): number {
    return this.#isOver ? Number.POSITIVE_INFINITY : performance.now();
  }

  async bye(): Promise<void> {
    await this.claims.close();
    await this.#node.call(SERVICE, { call: 'bye', client: this.client }, this.#limits);
  }
}

export class NodeCluster {
  readonly transfer: EngineTransfer;
  readonly peers: ClusterPeers;
  readonly staging: Staging;
  readonly #address: string;
  readonly #control: TcpTransfer;
  readonly #limits: CallLimits;
  #session?: Promise<NodeSession>;
  /** The last one that began. */
  #current?: NodeSession;
  #closing?: Promise<void>;

  private constructor(
    options: NodeAttachOptions,
    limits: CallLimits,
    control: TcpTransfer,
    transfer: EngineTransfer,
    home: string,
  ) {
    this.#address = options.node;
    this.#limits = limits;
    this.#control = control;
    this.transfer = transfer;
    this.peers = new ClusterPeers(transfer, home);
    const bytes = parseSize('localBufferSize', options.localBufferSize ?? STAGING_BYTES);
    this.staging = new Staging(bytes, (memory) => transfer.borrow(memory));
  }

  /**
   * Resolves when the node knows us.
   * @throws ERR_INVALID_ARGUMENT naming the option, ERR_PEER where nothing answers, ERR_NOT_SUPPORTED where it is no store node
   */
  static async attach(given: NodeAttachOptions): Promise<NodeCluster> {
    const options = object('options', given);
    const node = string('node', options.node);
    string('tenant', options.tenant ?? 'default');
    const native = options.native === undefined ? undefined : boolean('native', options.native);
    const limits = { timeoutMs: integer('timeoutMs', options.timeoutMs ?? 30_000, 1, MAX_TIMEOUT_MS) };
    const control = await TcpTransfer.listen();
    let engine: TransferEngine | undefined;
    try {
      const { peer, hello } = await greet(control, node, limits);
      if (hello.engines === undefined) {
        throw errors.notSupported(
          `attaching to ${node} as a node`,
          'a store is served there: attach with { transfer, address }',
        );
      }
      engine = await TransferEngine.create({ metadata: hello.engines, native, ...limits });
      const cluster = new NodeCluster(options, limits, control, new EngineTransfer(engine), hello.home);
      cluster.#session = Promise.resolve(cluster.#begin(peer, hello));
      return cluster;
    } catch (error) {
      await engine?.close();
      await control.close();
      throw error;
    }
  }

  session(): Promise<NodeSession> {
    if (this.#closing) return Promise.reject(errors.closed('the store'));
    if (this.#session) return this.#session;
    this.#session = this.#connect();
    this.#session.catch(() => {
      this.#session = undefined;
    });
    return this.#session;
  }

  async #connect(): Promise<NodeSession> {
    const { peer, hello } = await greet(this.#control, this.#address, this.#limits);
    return this.#begin(peer, hello);
  }

  #begin(peer: Peer, hello: Hello): NodeSession {
    const session = new NodeSession(peer, hello, this.peers, this.#limits, () => {
      if (this.#current === session) this.#session = undefined;
    });
    this.#current = session;
    return session;
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** Tells the node, which takes back what was not ended. */
  async #close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined);
    await session?.bye().catch(() => {});
    await this.#control.close();
    await this.transfer.close();
  }
}

async function greet(control: TcpTransfer, address: string, limits: CallLimits) {
  const peer = await control.connect(address, limits);
  const hello = unpackHello(await peer.call(SERVICE, { call: 'hello', version: VERSION }, limits));
  return { peer, hello };
}
