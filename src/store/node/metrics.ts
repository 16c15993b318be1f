/** A node's figures, for Prometheus and as JSON. */
import { type Labelled, labelled, MetricsText } from '../../metrics/text.js';
import type { LinkStatistics } from '../../transfer/engine/api.js';
import type { StoreMissReason } from '../api.js';
import type { PeerFigures } from '../joined/peers.js';

export interface NodeStatus {
  /** How peers reach the node's memory: `host:port`. */
  readonly name: string;
  /** The master's RPC. */
  readonly master: string;
  /** Where other processes attach: `tcp://host:port`. Undefined where none may. */
  readonly attach: string | undefined;
  readonly isConnected: boolean;
  /** What the node lends, in bytes. */
  readonly segments: readonly { readonly id: string; readonly name: string; readonly bytes: number }[];
  /** What came through the REST API and through attached processes' metadata; their bytes move past the node. */
  readonly objects: {
    readonly puts: number;
    readonly existing: number;
    readonly failedPuts: number;
    readonly bytesPut: number;
    readonly hits: number;
    readonly bytesGot: number;
    readonly verifiedBytes: number;
    readonly unverifiedHits: number;
    readonly misses: Readonly<Record<StoreMissReason, number>>;
  };
  /** Paths to peers, and what each has carried. */
  readonly links: readonly LinkStatistics[];
  readonly peers: readonly PeerFigures[];
}

export function metrics({ isConnected, segments, objects, links, peers }: NodeStatus): string {
  const text = new MetricsText();
  const metric = text.metric.bind(text);
  const bytes = segments.reduce((total, segment) => total + segment.bytes, 0);
  metric('mooncake_node_master_connected', 'gauge', 'Whether the master can be reached', isConnected ? 1 : 0);
  metric('mooncake_node_segments', 'gauge', 'Segments lent', segments.length);
  metric('mooncake_node_segment_bytes', 'gauge', 'Bytes lent', bytes);
  metric('mooncake_node_puts_total', 'counter', 'Objects stored', objects.puts);
  metric('mooncake_node_put_existing_total', 'counter', 'Puts of what was there', objects.existing);
  metric('mooncake_node_put_failures_total', 'counter', 'Puts refused or taken back', objects.failedPuts);
  metric('mooncake_node_put_bytes_total', 'counter', 'Bytes stored', objects.bytesPut);
  metric('mooncake_node_hits_total', 'counter', 'Objects read', objects.hits);
  metric('mooncake_node_get_bytes_total', 'counter', 'Bytes read', objects.bytesGot);
  metric('mooncake_node_verified_bytes_total', 'counter', 'Bytes whose checksum was compared', objects.verifiedBytes);
  metric(
    'mooncake_node_unverified_hits_total',
    'counter',
    'Objects read that have no checksum',
    objects.unverifiedHits,
  );
  metric('mooncake_node_misses_total', 'counter', 'Objects not read, by reason', labelled('reason', objects.misses));
  const byLink = (value: (link: LinkStatistics) => number): Labelled =>
    links.map((link) => [{ peer: link.peer, transport: link.transport, link: link.name }, value(link)]);
  metric(
    'mooncake_node_link_bytes_total',
    'counter',
    'Bytes moved, by path',
    byLink((link) => link.bytes),
  );
  metric(
    'mooncake_node_link_failures_total',
    'counter',
    'Moves that failed, by path',
    byLink((link) => link.failures),
  );
  metric(
    'mooncake_node_link_up',
    'gauge',
    'Whether a path works',
    byLink((link) => (link.alive ? 1 : 0)),
  );
  const failures = peers.map(({ peer, failures }) => [{ peer }, failures] as const);
  metric('mooncake_node_peer_failures_total', 'counter', 'Failures of a peer', failures);
  return text.toString();
}
