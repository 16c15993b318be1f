/** What the service keeps in an object's record, beyond what the table's own names say. */
import { ObjectTable } from '../core/objects.js';

export { ObjectTable };

/** States of an object: its put is under way, or it is readable. */
export const PROCESSING = 'processing';
export const COMPLETE = 'complete';

/** Flags. */
export const HAS_CHECKSUM = 1;
export const HARD_PINNED = 2;

/**
 * The list of readable objects in order of use. An object that eviction met while something protected it is in no list:
 * the order of eviction has it then (order.ts), until it is read.
 */
export const RECENT = 0;
