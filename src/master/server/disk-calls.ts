/**
 * The calls of clients that lend disks. Where this master was not told to offload they are answered as by a stock master
 * without `--enable_offload`.
 */
import type { Keys } from '../../core/keys.js';
import type { Packed } from '../../rpc/batches.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';
import type { Outcome, Status } from '../api.js';
import type { DiskTask } from '../disk-replicas.js';
import type { MetadataService } from '../service.js';
import { STATUS } from '../status.js';
import { goodKeys, oneKey, spread } from './keys.js';
import type { Lending } from './lending.js';
import { toWire } from './replicas.js';

/** Mooncake's ReplicaType: copies on a shared file system, of which there are none here, and on clients' disks. */
const [SHARED_DISK, LOCAL_DISK] = [1, 2];

export function serveDisks(server: RpcServer, service: MetadataService, lending: Lending): void {
  const { disks } = service;
  server.handle(METHODS.MountLocalDiskSegment, ({ client, offload }) => verdict(lending.mountDisk(client, offload)));
  server.handle(METHODS.UnmountLocalDiskSegment, ({ client }) => verdict(disks.unmount(client)));
  server.handle(METHODS.ReportSsdCapacity, ({ client, bytes }) => verdict(disks.reportCapacity(client, Number(bytes))));
  server.handle(METHODS.PollRemoveAll, ({ client }) => {
    const outcome = disks.mayWipe(client);
    return outcome.ok ? success(outcome.value) : failure(outcome.status);
  });

  const tasks = (outcome: Outcome<DiskTask[]>) =>
    outcome.ok
      ? success(outcome.value.map(({ tenant, key, size }) => ({ tenant, key, size: BigInt(size) })))
      : failure(outcome.status);
  server.handle(METHODS.OffloadObjectHeartbeat, ({ client, offload }) => tasks(disks.takeOffloads(client, offload)));
  server.handle(METHODS.PromotionObjectHeartbeat, ({ client }) => tasks(disks.takePromotions(client)));

  server.handle(METHODS.NotifyOffloadSuccess, ({ client, objects, entries }) => {
    if (objects.length !== entries.length) return failure(STATUS.invalidParams);
    const noted = objects.flatMap(({ tenant, key }, i) => {
      const { dataSize, endpoint } = entries[i];
      if (oneKey(key).keys.length === 0) return [];
      return [{ tenant, key, size: Number(dataSize), endpoint, written: dataSize >= 0n }];
    });
    const status = disks.noteOffloads(client, noted);
    // Where there are no disks stock answers ok; nothing is noted, since it could not be read.
    return verdict(lending.takesDisks ? status : STATUS.ok);
  });

  const one = (key: Uint8Array, run: (keys: Keys) => Status) => {
    const { keys } = oneKey(key);
    return verdict(keys.length === 0 ? STATUS.notFound : run(keys));
  };
  server.handle(METHODS.PromotionAllocStart, ({ client, key, tenant, size, preferredSegments }) => {
    const { keys } = oneKey(key);
    if (keys.length === 0) return failure(STATUS.notFound);
    const outcome = disks.startPromotion(client, keys, Number(size), preferredSegments, tenant);
    return outcome.ok ? success({ target: toWire(lending.bases, outcome.value) }) : failure(outcome.status);
  });
  server.handle(METHODS.NotifyPromotionSuccess, ({ client, key, tenant }) =>
    one(key, (keys) => disks.endPromotion(client, keys, tenant)),
  );
  server.handle(METHODS.NotifyPromotionFailure, ({ client, key, tenant }) =>
    one(key, (keys) => disks.failPromotion(client, keys, tenant)),
  );

  const evict = (client: string, wanted: Packed, tenant: string, replicaType: number): Int32Array => {
    const count = wanted.offsets.length - 1;
    if (replicaType !== SHARED_DISK && replicaType !== LOCAL_DISK)
      return new Int32Array(count).fill(STATUS.invalidParams);
    const { keys, places } = goodKeys(wanted);
    // A client that lends no disk takes nothing from any: then only what is known matters.
    const statuses = disks.evict(replicaType === LOCAL_DISK ? client : NOBODY, keys, tenant);
    return Int32Array.from(spread(statuses, places, count, STATUS.notFound));
  };
  server.handle(METHODS.EvictDiskReplica, ({ client, key, tenant, replicaType }) =>
    verdict(evict(client, { bytes: key, offsets: Uint32Array.of(0, key.length) }, tenant, replicaType)[0]),
  );
  server.handle(METHODS.BatchEvictDiskReplica, ({ client, keys, tenant, replicaType }) =>
    evict(client, keys, tenant, replicaType),
  );
}

const NOBODY = '0'.repeat(32);
