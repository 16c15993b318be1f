/**
 * A process for tests to kill: `node disk-child.js FOLDER` puts numbered objects into a disk tier, one batch after the other,
 * and prints the number of each batch that is acknowledged.
 */
import { DiskTier } from 'mooncake-ts';
import { contentOf, PER_BATCH } from './disk-content.js';

const tier = await DiskTier.open({ folder: process.argv[2], capacityBytes: 64 * 2 ** 20, bucketBytes: 4 * 2 ** 20 });
for (let batch = 0; ; batch++) {
  const numbers = Array.from({ length: PER_BATCH }, (_, i) => batch * PER_BATCH + i);
  await tier.put(
    numbers.map((n) => `object-${n}`),
    numbers.map(contentOf),
  );
  console.log(batch);
}
