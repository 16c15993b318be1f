/** A rank whose memory the service maps, and whose layout it refuses; in a thread, as its calls block. */
import { parentPort, workerData } from 'node:worker_threads';
import { type KvLayout, ServiceConnector, sharedMemory } from 'mooncake-ts';
import { ENGINE } from './raw-client.js';

const { engineId, model } = { ...ENGINE, engineId: 'refused' };
const connector = new ServiceConnector({ socket: workerData, connector: { kind: 'store' } });
const rank = connector.createWorker({ engineId, model, role: 'both', hash: { blockSize: 4 } }, 0);
try {
  rank.registerKvCaches({
    memories: [sharedMemory(1 << 16)],
    layout: () => ({ groups: 'none' }) as unknown as KvLayout,
  });
  parentPort!.postMessage('taken');
} catch (error) {
  parentPort!.postMessage((error as Error).message);
}
