/** What has carried the bytes of a store that is attached to a node. */
import type { EngineStatistics, MooncakeStore } from 'mooncake-ts';

const WAIT_MS = 60_000;

/** Bytes by transport, over all links. */
export function carried(store: MooncakeStore): Record<string, number> {
  const { engine } = store.transfer as unknown as { engine: { statistics(): EngineStatistics } };
  const sums: Record<string, number> = {};
  for (const { transport, bytes } of engine.statistics().links) sums[transport] = (sums[transport] ?? 0) + bytes;
  return sums;
}

/**
 * Stores small values until shared memory has carried one: the link comes up while the first moves, on a machine with much else
 * to do, may already have gone over TCP.
 */
export async function untilShared(store: MooncakeStore, name: string): Promise<void> {
  const end = Date.now() + WAIT_MS;
  for (let i = 0; !(carried(store).shm > 0); i++) {
    if (Date.now() > end) throw new Error(`no shared memory: ${JSON.stringify(carried(store))}`);
    await store.put(`${name} ${i}`, new Uint8Array(1));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
