/** The calls about objects: puts, upserts, reads, removal. What they mean: docs/store.md and docs/compatibility.md. */
import { MooncakeError } from '../../core/errors.js';
import type { Keys } from '../../core/keys.js';
import type { Packed } from '../../rpc/batches.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import type { RpcServer } from '../../rpc/server.js';
import { failure, success, verdict } from '../../rpc/types.js';
import type { Outcome, Replica, Status, Uuid } from '../api.js';
import type { MetadataService } from '../service.js';
import { STATUS } from '../status.js';
import { answerMethods } from './answers.js';
import { goodKeys, isKey, packKeys, spread } from './keys.js';
import { type Bases, configFromWire, copiesToWire, sizesFromWire, type WireConfig } from './replicas.js';
import { batchStart, END_METHODS, type Ends } from './requests.js';

const BAD = { ok: false, status: STATUS.invalidParams, why: 'invalid parameters' } as const;
const ABSENT = { ok: false, status: STATUS.notFound, why: 'absent' } as const;
/** Mooncake's ReplicaType: the copies that an end or a revoke is about. */
const [MEMORY, ALL] = [0, 4];

/** The code that Mooncake has for what the service refuses; a bug stays an exception. */
export function statusOf(error: unknown): Status {
  if (!(error instanceof MooncakeError)) throw error;
  if (error.code === 'ERR_INVALID_ARGUMENT') return STATUS.invalidParams;
  if (error.code === 'ERR_UNKNOWN_TENANT') return STATUS.unknownTenant;
  throw error;
}

function guarded<T>(run: () => readonly T[], count: number, refused: (status: Status) => T): readonly T[] {
  try {
    return run();
  } catch (error) {
    return new Array<T>(count).fill(refused(statusOf(error)));
  }
}

export function serveObjects(server: RpcServer, service: MetadataService, bases: Bases): void {
  type StartCall = MetadataService['putStart'];

  const answered = answerMethods(bases);
  const start = (
    call: StartCall,
    client: Uuid,
    wanted: Packed,
    all: Float64Array,
    config: WireConfig,
    tenant: string,
  ): readonly Outcome<Replica[]>[] => {
    const count = wanted.offsets.length - 1;
    const { keys, places } = goodKeys(wanted);
    const asked = configFromWire(config, count);
    if (typeof asked === 'number') return new Array(count).fill({ ok: false, status: asked, why: 'config' });
    // Stock refuses a batch whose sizes are not one a key.
    if (all.length !== count) return new Array(count).fill(BAD);
    const groups = places ? Array.from(places, (i) => asked.groups?.[i] ?? '') : asked.groups;
    const good = places ? Float64Array.from(places, (i) => all[i]) : all;
    const outcomes = guarded<Outcome<Replica[]>>(
      () => call.call(service, client, keys, good, { ...asked, groups }, tenant),
      keys.length,
      (status) => ({ ok: false, status, why: '' }),
    );
    return spread(outcomes, places, count, BAD);
  };

  /** Statuses key by key, in one array for the wire. */
  const each = (wanted: Packed, run: (keys: Keys, places?: Uint32Array) => readonly Status[]): Int32Array => {
    const count = wanted.offsets.length - 1;
    const { keys, places } = goodKeys(wanted);
    const statuses = guarded(
      () => run(keys, places),
      keys.length,
      (status) => status,
    );
    return Int32Array.from(spread(statuses, places, count, STATUS.notFound));
  };

  /** An end or a revoke of copies of a kind that objects here have none of: nothing is done, and -700 after the end. */
  const ofNone = (wanted: Packed, tenant: string): Int32Array =>
    each(wanted, (keys) =>
      service.peek(keys, tenant).map((found) => {
        if (found.ok) return STATUS.invalidWrite;
        return found.status === STATUS.notReady ? STATUS.ok : found.status;
      }),
    );

  const single = (key: Uint8Array): Packed => ({ bytes: key, offsets: Uint32Array.of(0, key.length) });
  const first = (statuses: Int32Array) => verdict(statuses[0]);

  for (const kind of ['Put', 'Upsert'] as const) {
    const [begin, end, revoke] =
      kind === 'Put'
        ? [service.putStart, service.putEnd, service.putRevoke]
        : [service.upsertStart, service.upsertEnd, service.upsertRevoke];
    server.handle(
      answered[`${kind}Start`],
      ({ client, key, size, config, tenant }) =>
        start(begin, client, single(key), sizesFromWire([size]), config, tenant)[0],
    );
    const many = { ...answered[`Batch${kind}Start`], arguments: batchStart };
    server.handle(many, ({ client, keys, sizes, config, tenant }) => start(begin, client, keys, sizes, config, tenant));
    const endAll = (client: Uuid, ends: Ends, tenant: string, type: number = ALL) => {
      if (type !== ALL && type !== MEMORY) return ofNone(ends, tenant);
      const { checksums } = ends;
      return each(ends, (keys, places) => {
        const of = places ? Array.from(places, (i) => checksums[i]) : checksums;
        return end.call(service, client, keys, of, tenant);
      });
    };
    const revokeAll = (client: Uuid, keys: Packed, tenant: string, type: number = ALL) => {
      if (type !== ALL && type !== MEMORY) return ofNone(keys, tenant);
      return each(keys, (good) => revoke.call(service, client, good, tenant));
    };
    server.handle(METHODS[`${kind}End`], ({ client, object, replicaType, tenant }) =>
      first(endAll(client, { ...single(object.key), checksums: [object.checksum] }, tenant, replicaType)),
    );
    server.handle(METHODS[`${kind}Revoke`], ({ client, key, replicaType, tenant }) =>
      first(revokeAll(client, single(key), tenant, replicaType)),
    );
    if (kind === 'Put') {
      server.handle(END_METHODS.BatchPutEnd, ({ client, objects, replicaType, tenant }) =>
        endAll(client, objects, tenant, replicaType),
      );
      server.handle(METHODS.BatchPutRevoke, ({ client, keys, replicaType, tenant }) =>
        revokeAll(client, keys, tenant, replicaType),
      );
    } else {
      server.handle(END_METHODS.BatchUpsertEnd, ({ client, objects, tenant }) => endAll(client, objects, tenant));
      server.handle(METHODS.BatchUpsertRevoke, ({ client, keys, tenant }) => revokeAll(client, keys, tenant));
    }
  }

  server.handle(METHODS.ExistKey, ({ key, tenant }) => {
    if (!isKey(key.length)) return success(false);
    const answer = service.has(key, tenant);
    return answer < 0 ? failure(answer) : success(answer === 1);
  });
  server.handle(METHODS.BatchExistKey, ({ keys: wanted, tenant }) => {
    const { keys, places } = goodKeys(wanted);
    const answers = service.exist(keys, tenant);
    if (!places) return answers;
    return Int32Array.from(spread([...answers], places, wanted.offsets.length - 1, 0));
  });
  server.handle(answered.GetReplicaList, ({ key, tenant }) => {
    return isKey(key.length) ? service.getReplica(key, tenant) : ABSENT;
  });
  server.handle(answered.BatchGetReplicaList, ({ keys: wanted, tenant }) => {
    const { keys, places } = goodKeys(wanted);
    return spread(service.getReplicas(keys, tenant), places, wanted.offsets.length - 1, ABSENT);
  });
  server.handle(METHODS.GetReplicaListByRegex, async ({ pattern, tenant }) => {
    try {
      const found = await service.copiesByRegex(pattern, tenant);
      const value = new Map<Uint8Array, ReturnType<typeof copiesToWire>>();
      for (const [key, copies] of found) value.set(Buffer.from(key), copiesToWire(bases, copies));
      return success(value);
    } catch (error) {
      return failure(statusOf(error));
    }
  });

  server.handle(METHODS.Remove, ({ key, force, tenant }) =>
    first(each(single(key), (keys) => service.remove(keys, force, tenant))),
  );
  server.handle(METHODS.BatchRemove, ({ keys, force, tenant }) =>
    each(keys, (good) => service.remove(good, force, tenant)),
  );
  server.handle(METHODS.BatchReplicaClear, ({ keys: wanted, client, segment }) => {
    const statuses = each(wanted, (keys) => service.clearReplicas(client, keys, segment));
    const { bytes, offsets } = wanted;
    const cleared = [...statuses.keys()].filter((i) => statuses[i] === STATUS.ok);
    return success(packKeys(cleared.map((i) => bytes.subarray(offsets[i], offsets[i + 1]))));
  });
  server.handle(METHODS.RemoveByRegex, async ({ pattern, force, tenant }) => {
    try {
      return success(BigInt(await service.removeByRegex(pattern, force, tenant)));
    } catch (error) {
      return failure(statusOf(error));
    }
  });
  server.handle(METHODS.RemoveAll, async ({ force, tenant }) => {
    try {
      return BigInt(await service.removeAll(force, tenant));
    } catch (error) {
      return BigInt(statusOf(error));
    }
  });
}
