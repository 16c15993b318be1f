/** What the service keeps in an object's record, beyond what the table's own names say. */
import { ObjectTable } from '../core/objects.js';

export { ObjectTable };

/** States of an object: its put is under way, or it is readable. */
export const PROCESSING = 'processing';
export const COMPLETE = 'complete';

/** Flags. */
export const HAS_CHECKSUM = 1;
export const HARD_PINNED = 2;
/** It has a copy on a disk and none in memory: what the record says of handles means nothing. */
export const DISK_ONLY = 4;
/** A client is to write it to its disk, or is at it: its copies in memory stay until that has ended. */
export const OFFLOADING = 8;
/** A client is copying or moving it: its copies stay until that has ended. */
export const COPYING = 16;

/** Of the order of eviction among all, and of that in a tenant (order.ts). */
export const SWEPT = 32;
export const SWEPT_IN_TENANT = 64;

/** Flags of objects that eviction passes over, and of those that are not to be copied, moved or replaced now. */
export const HOLDING = HARD_PINNED | COPYING | OFFLOADING | DISK_ONLY;
export const BUSY = COPYING;

/**
 * The lists of readable objects, each in order of use: those not read since their put, and those that were read. Leases
 * of the latter end in the order of the list, so eviction stops at the first that has not ended and walks over none. An
 * object that it met while something else protected it is in no list: the order of eviction has it then (order.ts),
 * until it is read.
 */
export const UNREAD = 0;
export const READ = 1;
/** The list of objects that are on a disk alone. They give up no memory; the oldest goes when the table is full. */
export const ON_DISK = 2;
