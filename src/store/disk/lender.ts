/**
 * A joined store that lends its disk: about once a second it asks the master what to write there, writes it and says so,
 * brings back to memory what the master wants there, and serves the disk to others as stock clients do.
 *
 *   master ─► heartbeat ─► bytes of our own memory ─► DiskTier ─► NotifyOffloadSuccess
 *          ─► promotions ─► DiskTier ─► Counter ─► memory, ours or a peer's
 *   peers  ─► batch_get_offload_object ─► DiskTier ─► Counter ─► read by the peer's engine
 *
 * A master that does not know the disk (-101: it was restarted, or we were silent for too long) is told of it anew, with what
 * is on it: keys that it does not know, and objects whose checksum it has is that of our bytes. What else it has under a key may
 * have been written since; our bytes of it are removed. Objects are in the tier by tenant and key.
 */
import { crc64 } from '../../core/checksum.js';
import { errors } from '../../core/errors.js';
import { Keys, MAX_KEY_BYTES } from '../../core/keys.js';
import type { Uuid } from '../../master/api.js';
import { STATUS } from '../../master/status.js';
import type { Method } from '../../rpc/method.js';
import { CLIENT_METHODS } from '../../rpc/schemas/client_v0_3_13.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import { RpcServer } from '../../rpc/server.js';
import { failure, success } from '../../rpc/types.js';
import type { TransferEngine } from '../../transfer/engine/engine.js';
import { formatName } from '../../transfer/metadata/name.js';
import { BATCH_TTL_MS, Counter, type Staged } from './counter.js';
import { diskKey, splitKey } from './key.js';
import { Promotions } from './promotions.js';
import { DiskTier, type DiskTierOptions } from './tier.js';

export interface DiskLenderOptions extends Omit<DiskTierOptions, 'engine' | 'onEvicted'> {
  /** Between two heartbeats. Default 1,000 ms. */
  heartbeatMs?: number;
  /** Memory in which objects lie for peers that read them. Default 64 MiB. */
  bufferBytes?: number;
}

/** What the lender needs of the store that it is part of. */
export interface Lent {
  readonly client: Uuid;
  readonly engine: TransferEngine;
  /** Interface of the service for readers, and the host that they are told. */
  readonly host: string;
  readonly advertise: string;
  call<A, R>(method: Method<A, R>, args: A): Promise<R>;
  /** Aborted when the master forgets what it says from now on: room that it gave may be another's then. */
  said(): AbortSignal;
  /** Bytes of the store's own memory, by the address that the master names; undefined where it lends none there. */
  bytesAt(address: number, size: number): Uint8Array | undefined;
  /** Writes to a copy's place in memory, ours or a peer's. After a failure bytes may still land with a peer. */
  write(endpoint: string, address: bigint, staged: Staged, signal: AbortSignal): Promise<void>;
}

/** An object that the tier has. */
interface Kept extends DiskTask {
  readonly checksum: bigint;
}

export interface DiskTask {
  readonly tenant: string;
  readonly key: Uint8Array;
  readonly size: bigint;
}

const HEARTBEAT_MS = 1000;
const BUFFER_BYTES = 64 * 2 ** 20;
/** Bytes that are copied out of memory before they are written. */
const BATCH_BYTES = 32 * 2 ** 20;
const BATCH_KEYS = 1000;
const MEMORY_OF_CLIENT_DISK = 2;
/** Mooncake's INVALID_KEY, as stock clients answer for what their disk has not. */
const INVALID_KEY = -400;

export class DiskLender {
  readonly tier: DiskTier;
  readonly #lent: Lent;
  readonly #counter: Counter;
  readonly #server: RpcServer;
  readonly #heartbeatMs: number;
  #endpoint = '';
  #timer?: NodeJS.Timeout;
  #beating: Promise<void> = Promise.resolve();
  readonly #closed = new AbortController();
  readonly #promotions: Promotions;
  #withdrawn?: Promise<void>;
  /** Evictions that the master has not been told of. */
  readonly #evicted: Uint8Array[];

  private constructor(lent: Lent, tier: DiskTier, counter: Counter, evicted: Uint8Array[], heartbeatMs: number) {
    this.#lent = lent;
    this.tier = tier;
    this.#evicted = evicted;
    this.#counter = counter;
    this.#heartbeatMs = heartbeatMs;
    this.#promotions = new Promotions(lent, counter, this.#closed.signal);
    this.#server = new RpcServer({ host: lent.host });
    this.#server.handle(CLIENT_METHODS.batchGetOffloadObject, async ({ keys, sizes }) => {
      const batch = await counter.stage(keys, sizes.map(Number));
      if (!batch) return failure(INVALID_KEY);
      return success({
        batch: BigInt(batch.number),
        addresses: batch.objects.map(({ address }) => address),
        engine: lent.engine.name,
        ttlMs: BigInt(BATCH_TTL_MS),
      });
    });
    this.#server.handle(CLIENT_METHODS.releaseOffloadBuffer, ({ batch }) => counter.release(Number(batch)));
  }

  /** Resolves when the disk is served, and the master was told once. Throws what DiskTier.open throws, ERR_NOT_SUPPORTED. */
  static async open(lent: Lent, options: DiskLenderOptions): Promise<DiskLender> {
    const { heartbeatMs = HEARTBEAT_MS, bufferBytes = BUFFER_BYTES, ...tierOptions } = options;
    const { engine } = lent;
    const evicted: Uint8Array[] = [];
    const onEvicted = (keys: Uint8Array[]) => {
      for (const key of keys) evicted.push(key);
    };
    const tier = await DiskTier.open({ ...tierOptions, engine, onEvicted });
    try {
      const counter = await Counter.open(tier, engine, bufferBytes);
      const lender = new DiskLender(lent, tier, counter, evicted, heartbeatMs);
      await lender.#begin();
      return lender;
    } catch (error) {
      await tier.close();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    try {
      this.#endpoint = formatName({ host: this.#lent.advertise, port: await this.#server.listen() });
      await this.#mount();
      this.#schedule();
    } catch (error) {
      await this.#server.close();
      throw error;
    }
  }

  /** Bytes that were laid out for a reader, who is this very process; undefined where there are none. */
  bytesAt(address: number, size: number): Uint8Array | undefined {
    return this.#counter.bytesAt(address, size);
  }

  /** Nothing is written any more; what is on the disk stays there, and is offered again when it is opened. */
  async close(): Promise<void> {
    await this.withdraw().catch(() => {});
    await this.#server.close();
    await this.tier.close();
  }

  /** The master sends nobody here any more, and nothing is written; who was sent before is still served. Idempotent. */
  withdraw(): Promise<void> {
    return (this.#withdrawn ??= this.#withdraw());
  }

  async #withdraw(): Promise<void> {
    this.#closed.abort(errors.closed('the disk'));
    clearTimeout(this.#timer);
    await this.#beating;
    const { client, call } = this.#lent;
    const answer = await call(METHODS.UnmountLocalDiskSegment, { client });
    if (!answer.ok) throw errors.peer('the master', `it refused to unmount the disk: status ${answer.error}`);
  }

  #schedule(): void {
    if (this.#closed.signal.aborted) return;
    this.#timer = setTimeout(() => {
      // A master that is away is asked again with the next one.
      this.#beating = this.#beat()
        .catch(() => {})
        .then(() => this.#schedule());
    }, this.#heartbeatMs).unref();
  }

  async #beat(): Promise<void> {
    const { client, call } = this.#lent;
    const answer = await call(METHODS.OffloadObjectHeartbeat, { client, offload: true });
    if (!answer.ok) {
      if (answer.error === STATUS.segmentNotFound) await this.#mount();
      return;
    }
    const wipe = await call(METHODS.PollRemoveAll, { client });
    if (wipe.ok && wipe.value) await this.tier.clear();
    await this.#offload(answer.value);
    await this.#sayEvicted();
    const promotions = await call(METHODS.PromotionObjectHeartbeat, { client });
    // One that cannot be brought back keeps the others from nothing.
    if (promotions.ok) for (const task of promotions.value) await this.#promotions.carryOut(task).catch(() => {});
  }

  /** Tells the master of the disk, and of what is on it. */
  async #mount(): Promise<void> {
    const { client, call } = this.#lent;
    const mounted = await call(METHODS.MountLocalDiskSegment, { client, offload: true });
    if (!mounted.ok) {
      if (mounted.error === STATUS.offloadDisabled) {
        throw errors.notSupported('a disk', 'the master runs without --enable_offload');
      }
      throw errors.peer('the master', `it refused the disk: status ${mounted.error}`);
    }
    await call(METHODS.ReportSsdCapacity, { client, bytes: BigInt(this.tier.stats().capacityBytes) });
    const batch: Kept[] = [];
    for (const { key, size, checksum } of this.tier.entries()) {
      const { tenant, key: name } = splitKey(key);
      batch.push({ tenant, key: name, size: BigInt(size), checksum });
      if (batch.length === BATCH_KEYS) await this.#offer(batch.splice(0));
    }
    await this.#offer(batch);
  }

  async #offer(objects: readonly Kept[]): Promise<void> {
    for (const [tenant, kept] of byTenant(objects)) {
      const keys = Keys.from(kept.map(({ key }) => key));
      const known = await this.#lent.call(METHODS.BatchGetReplicaList, { keys, tenant });
      if (known.length !== kept.length) throw errors.protocol('answers to other keys', known.length);
      const isOurs = ({ checksum }: Kept, i: number) => {
        const answer = known[i];
        return answer.ok ? answer.value.checksum === checksum : answer.error === STATUS.notFound;
      };
      const others = kept.filter((object, i) => !isOurs(object, i));
      await this.tier.remove(others.map(({ key }) => diskKey(tenant, key)));
      await this.#note(kept.filter(isOurs), true);
    }
  }

  async #note(objects: readonly DiskTask[], written: boolean): Promise<void> {
    if (objects.length === 0) return;
    const entries = objects.map(({ key, size }) => ({
      bucket: 0n,
      offset: 0n,
      keySize: BigInt(key.length),
      dataSize: written ? size : -1n,
      endpoint: this.#endpoint,
    }));
    await this.#lent.call(METHODS.NotifyOffloadSuccess, { client: this.#lent.client, objects, entries });
  }

  async #offload(tasks: readonly DiskTask[]): Promise<void> {
    for (let first = 0; first < tasks.length; ) {
      let [count, bytes] = [0, 0];
      while (first + count < tasks.length && count < BATCH_KEYS && (count === 0 || bytes < BATCH_BYTES)) {
        bytes += Number(tasks[first + count++].size);
      }
      await this.#offloadBatch(tasks.slice(first, first + count));
      first += count;
    }
  }

  async #offloadBatch(tasks: readonly DiskTask[]): Promise<void> {
    const values = await Promise.all(tasks.map((task) => this.#valueOf(task).catch(() => undefined)));
    const there = tasks.filter((_, i) => values[i] !== undefined);
    const written = await this.tier.put(
      there.map(({ tenant, key }) => diskKey(tenant, key)),
      values.filter((value) => value !== undefined),
    );
    await this.#sayEvicted();
    const done = there.filter((_, i) => written[i]);
    await this.#note(done, true);
    await this.#note(
      tasks.filter((task) => !done.includes(task)),
      false,
    );
  }

  /** A copy of an object's bytes in our own memory, as its writer summed them; undefined where it cannot be had. */
  async #valueOf({ tenant, key, size }: DiskTask): Promise<Uint8Array | undefined> {
    if (diskKey(tenant, key).length > MAX_KEY_BYTES) return undefined;
    const asked = performance.now();
    const said = this.#lent.said();
    const found = await this.#lent.call(METHODS.GetReplicaList, { key, tenant });
    if (!found.ok) return undefined;
    const { replicas, leaseMs, checksum } = found.value;
    for (const { descriptor } of replicas) {
      if (descriptor.kind !== 'memory') continue;
      const { buffer } = descriptor.value;
      if (buffer.endpoint !== this.#lent.engine.name || buffer.size !== size) continue;
      const value = this.#lent.bytesAt(Number(buffer.address), Number(size))?.slice();
      const inTime = !said.aborted && performance.now() - asked < Number(leaseMs);
      if (value && inTime && (checksum === undefined || crc64(value) === checksum)) return value;
    }
    return undefined;
  }

  /** What the tier has evicted is gone from the files: the master is told before it sends anybody there. */
  async #sayEvicted(): Promise<void> {
    const { client, call } = this.#lent;
    for (const [tenant, evicted] of byTenant(this.#evicted.splice(0).map(splitKey))) {
      const keys = Keys.from(evicted.map(({ key }) => key));
      const args = { client, keys, tenant, replicaType: MEMORY_OF_CLIENT_DISK };
      await call(METHODS.BatchEvictDiskReplica, args);
    }
  }
}

function byTenant<T extends { readonly tenant: string }>(objects: readonly T[]): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const object of objects) {
    const group = groups.get(object.tenant);
    if (group) group.push(object);
    else groups.set(object.tenant, [object]);
  }
  return groups;
}
