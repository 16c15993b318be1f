/**
 * The door of a store node for other processes of its host (`MooncakeStore.attach({ node })`): metadata by requests, which the
 * node passes on to the master; bytes go past it, by shared memory or straight to other members of the cluster. Whoever dies has
 * his unfinished puts taken back at once.
 */
import { TcpTransfer } from '../../transfer/tcp/transfer.js';
import type { JoinedCluster } from '../joined/cluster.js';
import { serveStore } from '../server.js';

export interface DoorOptions {
  /** Address to listen on. Default 127.0.0.1. */
  host?: string;
  /** Default 0: one that is free. */
  port?: number;
}

export class NodeDoor {
  /** What others attach to: `tcp://host:port`. */
  readonly address: string;
  readonly #transfer: TcpTransfer;

  private constructor(transfer: TcpTransfer) {
    this.#transfer = transfer;
    this.address = transfer.address;
  }

  /** Throws ERR_PEER where the port cannot be had. */
  static async open(cluster: JoinedCluster, options: DoorOptions): Promise<NodeDoor> {
    const transfer = await TcpTransfer.listen(options);
    const serving = serveStore(transfer, {
      home: cluster.transfer.address,
      engines: cluster.engines,
      // Clients end their writes in half of it.
      putReleaseMs: 2 * cluster.session().putWindowMs,
      metadata: cluster.metadata(),
      examine: (keys, tenant) => cluster.suspect(keys, tenant),
    });
    cluster.onForgotten = () => serving.disown();
    return new NodeDoor(transfer);
  }

  close(): Promise<void> {
    return this.#transfer.close();
  }
}
