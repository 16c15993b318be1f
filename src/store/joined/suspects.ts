/**
 * Objects that came out corrupt are looked at again: what has its checksum in none of its copies, read anew, is removed, so that it
 * is computed and stored again. What was wrong on its way, or in one copy alone, costs nobody the object.
 */
import type { Keys } from '../../core/keys.js';
import { STATUS } from '../../master/status.js';
import { Limits, pick } from '../batch.js';
import type { StoreContext } from '../context.js';
import { ObjectGets } from '../get.js';
import { uncleared } from '../values.js';

/** `context` of a store of its own: nothing of this is anybody's hit or miss. */
export async function removeCorrupt(context: StoreContext, keys: Keys, tenant: string): Promise<void> {
  const limits = new Limits({}, context);
  const corrupt: number[] = [];
  // One after the other: each needs memory for a whole value.
  for (let i = 0; i < keys.length; i++) {
    const gets = await ObjectGets.open(context, pick(keys, [i]), { tenant, stride: 1 }, limits);
    if (gets.isNear(0)) await gets.check(0, limits);
    else if (gets.statuses[0] === STATUS.ok) {
      await gets.fillFar(new Map([[0, { bytes: uncleared(gets.sizes[0]) }]]), limits, true);
    }
    const [status] = await gets.judge();
    if (status === STATUS.checksumMismatch) corrupt.push(i);
  }
  if (corrupt.length === 0) return;
  const session = await context.session();
  await session.metadata(limits.rest()).remove(pick(keys, corrupt), true, tenant);
}
