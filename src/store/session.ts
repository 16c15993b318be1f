/**
 * What the data path knows of the cluster: who it is there, the metadata service, and how to reach the bytes of a
 * replica. An embedded store has one session for life; an attached one has a session for each connection, and a put or
 * get stays with the session that it began on, so that what one run of the owner said is never read from the next.
 */
import type { MetadataClient, Replica, Uuid } from '../master/api.js';
import type { CallLimits, Peer } from '../transfer/transfer.js';
import type { SegmentMemory } from './memory.js';

/** Where a replica's bytes are reached: in this process, or through a peer's segment. `offset` in bytes. */
export type Place =
  | { readonly memory: SegmentMemory; readonly peer?: undefined; readonly offset: number }
  | { readonly memory?: undefined; readonly peer: Peer; readonly segment: number; readonly offset: number };

export interface Session {
  readonly client: Uuid;
  /** The metadata service; calls of one in another process end by these limits. */
  metadata(limits?: CallLimits): MetadataClient;
  /** Throws ERR_SEGMENT where the segment is gone, ERR_PEER where its owner is. */
  place(replica: Replica): Place | Promise<Place>;
}

/** A random id for a client or a segment. */
export function uuid(): Uuid {
  return crypto.randomUUID().replaceAll('-', '');
}
