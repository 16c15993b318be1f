/** What a store counts of itself: every call's outcome, every miss by its reason. */
import type { MetadataStats, MissReason } from '../master/api.js';
import { STATUS } from '../master/status.js';
import type { StoreMissReason } from './api.js';
import type { HotCacheFigures } from './hot-cache.js';
import type { PeerFigures } from './joined/peers.js';

export const MISS_REASONS: readonly StoreMissReason[] = [
  'absent',
  'evicted',
  'removed',
  'incomplete',
  'unknown-tenant',
  'size',
  'corrupt',
  'unverified',
  'lease-expired',
  'peer-lost',
  'timeout',
  'namespace',
];

/** Statuses of the reasons in batches; several share one, as Mooncake has no more. */
export const MISS_STATUS: Readonly<Record<StoreMissReason, number>> = {
  absent: STATUS.notFound,
  evicted: STATUS.notFound,
  removed: STATUS.notFound,
  incomplete: STATUS.notReady,
  'unknown-tenant': STATUS.unknownTenant,
  size: STATUS.invalidRead,
  corrupt: STATUS.checksumMismatch,
  unverified: STATUS.invalidRead,
  'lease-expired': STATUS.leaseExpired,
  'peer-lost': STATUS.transferFailed,
  timeout: STATUS.transferFailed,
  namespace: STATUS.notFound,
};

const METADATA_REASONS: ReadonlySet<string> = new Set<MissReason>([
  'absent',
  'evicted',
  'removed',
  'incomplete',
  'unknown-tenant',
]);

/** The reason in a failed lookup's answer: the service names it, and a service that does not is believed its status. */
export function missReason(status: number, why: string): StoreMissReason {
  if (METADATA_REASONS.has(why)) return why as StoreMissReason;
  if (status === STATUS.unknownTenant) return 'unknown-tenant';
  return status === STATUS.notReady ? 'incomplete' : 'absent';
}

/** What a store counts of itself. */
export interface StoreFigures {
  /** Objects stored by this client, and their bytes. */
  puts: number;
  bytesPut: number;
  /** Objects that were there already when this client put them. */
  existing: number;
  /** Puts that were refused or taken back. */
  failedPuts: number;
  /** Objects asked for to be read: hits and misses. */
  gets: number;
  hits: number;
  bytesGot: number;
  /** Bytes of hits whose checksum was compared with the object's, and hits without that. */
  verifiedBytes: number;
  unverifiedHits: number;
  misses: Readonly<Record<StoreMissReason, number>>;
}

export interface StoreCounters extends StoreFigures {
  /** The engines that a store of a cluster has met. */
  peers: readonly PeerFigures[] | undefined;
  hotCache: HotCacheFigures | undefined;
}

export interface StoreStats extends StoreFigures {
  /** Of the service, over all its clients. */
  metadata: MetadataStats;
}

export class Counters {
  puts = 0;
  bytesPut = 0;
  existing = 0;
  failedPuts = 0;
  hits = 0;
  bytesGot = 0;
  verifiedBytes = 0;
  unverifiedHits = 0;
  readonly misses = Object.fromEntries(MISS_REASONS.map((reason) => [reason, 0])) as Record<StoreMissReason, number>;

  figures(): StoreFigures {
    const misses = Object.values(this.misses).reduce((sum, count) => sum + count, 0);
    return { ...this, gets: this.hits + misses, misses: { ...this.misses } };
  }
}
