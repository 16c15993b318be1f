/** What the service counts from its start on. Of lookups that found nothing: why. */
import type { MissReason } from './api.js';

export interface Counters extends Record<MissReason, number> {
  evictedObjects: number;
  evictedBytes: number;
  evictions: number;
  fruitlessEvictions: number;
  discardedPuts: number;
  lookups: number;
  hits: number;
}

export function newCounters(): Counters {
  return {
    evictedObjects: 0,
    evictedBytes: 0,
    evictions: 0,
    fruitlessEvictions: 0,
    discardedPuts: 0,
    lookups: 0,
    hits: 0,
    absent: 0,
    evicted: 0,
    removed: 0,
    incomplete: 0,
    'unknown-tenant': 0,
  };
}
