/** What the calls of one store share. */
import type { Transfer } from '../transfer/transfer.js';
import type { Counters } from './counters.js';
import type { HotCache } from './hot-cache.js';
import type { Pacer } from './pacer.js';
import type { Session } from './session.js';
import type { Staging } from './staging.js';

export interface StoreContext {
  readonly transfer: Transfer;
  readonly counters: Counters;
  /** Where peers cannot be left to read and write any memory: what bytes pass through that are in none that is registered. */
  readonly staging?: Staging;
  /** Values that were read lately from other processes. */
  readonly hotCache?: HotCache;
  readonly pacer: Pacer;
  /** Puts give their objects a checksum. */
  readonly checksum: boolean;
  /** Gets compare it. */
  readonly verify: boolean;
  /** An object without a checksum, or one that was read in part, is a miss. */
  readonly requireChecksum: boolean;
  /** The name space of a call that names none. */
  readonly tenant: string;
  /** Deadline of a call that names none. */
  readonly timeoutMs: number;
  /** The connection to the cluster; throws ERR_PEER where there is none, ERR_CLOSED when the store is closed. */
  session(): Session | Promise<Session>;
}
