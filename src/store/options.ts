/** What calls and stores can be told. */
import { boolean } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { ReplicateConfig } from '../master/api.js';
import type { MetadataOptions } from '../master/options.js';
import type { CallLimits, Transfer } from '../transfer/transfer.js';
import type { SegmentOptions } from './segments.js';

export interface IntegrityOptions {
  /** Puts give their objects a CRC-64 of what the caller handed over. Default true. */
  checksum?: boolean;
  /** Gets compare the bytes they hand out with it. Default true. */
  verify?: boolean;
  /** What cannot be verified is a miss: objects without a checksum, and reads of a part. Default false. */
  requireChecksum?: boolean;
}

export interface StoreOptions extends IntegrityOptions, MetadataOptions {
  /**
   * The store's memory: bytes ("4GB" is 4 x 2^30), or segments one by one. An object lies in one segment, and a segment of
   * the store's own holds a little less than 4 GiB: larger sizes become several. Default "1GB".
   */
  segments?: number | string | readonly SegmentOptions[];
  /** The transfer whose segments descriptors name, and through which others may attach. Default: a LocalTransfer. */
  transfer?: Transfer;
  /** Names the host, for `preferSameNode`. Default "". */
  hostId?: string;
  /** Deadline of calls that name none, in ms. Default 30,000. */
  timeoutMs?: number;
}

export interface TenantOptions extends CallLimits {
  /** The name space. Default "default". */
  tenant?: string;
}

export interface PutValueOptions extends TenantOptions, ReplicateConfig {}

export interface GetValueOptions extends TenantOptions {
  /** Bytes that the object must have; another size is a miss. Default: any. */
  size?: number;
}

export interface RemoveOptions extends TenantOptions {
  /** Also what a lease protects; its bytes stay untouched until the lease has ended. Default false. */
  force?: boolean;
}

export interface ResolvedIntegrity {
  readonly checksum: boolean;
  readonly verify: boolean;
  readonly requireChecksum: boolean;
}

export function integrity(options: IntegrityOptions): ResolvedIntegrity {
  const checksum = boolean('checksum', options.checksum ?? true);
  const verify = boolean('verify', options.verify ?? true);
  const requireChecksum = boolean('requireChecksum', options.requireChecksum ?? false);
  if (requireChecksum && !verify) throw errors.invalidArgument('verify', verify, 'true where requireChecksum is');
  return { checksum, verify, requireChecksum };
}
