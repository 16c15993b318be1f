/**
 * Objects that are on the disks of other clients alone. The client that has the disk is asked to lay them out in its memory, batch by
 * batch; from there they are read like any other copy, for as long as it says that they lie there.
 *
 *   master ─► copy on a disk at host:port ─► batch_get_offload_object ─► copy in memory of that client's engine
 */
import type { Keys } from '../../core/keys.js';
import type { ObjectInfo, Outcome, Replica } from '../../master/api.js';
import { RpcClient } from '../../rpc/client.js';
import { CLIENT_METHODS } from '../../rpc/schemas/client_v0_3_13.js';
import { type Limits, shared } from '../../transfer/limits.js';
import { parseName } from '../../transfer/metadata/name.js';
import { diskKey } from '../disk/key.js';
import type { WireFound } from './wire.js';

const CONNECT_MS = 3000;
/** Bytes that one client is asked to lay out at once: a fraction of what it has for that. */
const MOST_BYTES = 16 * 2 ** 20;

/** Objects that were laid out together; their memory is given back when none of them is read any more. */
interface Batch {
  readonly client: RpcClient;
  readonly number: bigint;
  unread: number;
}

interface Wanted {
  /** Place among the keys. */
  readonly i: number;
  readonly size: number;
}

export class DiskReads {
  readonly #clients = new Map<string, Promise<RpcClient>>();
  readonly #batches = new WeakMap<ObjectInfo, Batch>();

  /** Fills in the objects of `answers` that are on disks alone; what cannot be had stays a miss. */
  async resolve(
    keys: Keys,
    tenant: string,
    answers: readonly WireFound[],
    outcomes: Outcome<ObjectInfo>[],
    limits: Limits,
  ): Promise<Outcome<ObjectInfo>[]> {
    const byEndpoint = new Map<string, Wanted[]>();
    for (const [i, answer] of answers.entries()) {
      if (outcomes[i].ok || !answer.ok) continue;
      const copy = answer.value.replicas.find(({ descriptor }) => descriptor.kind === 'localDisk')?.descriptor;
      if (copy?.kind !== 'localDisk') continue;
      const { endpoint, size } = copy.value;
      const wanted = byEndpoint.get(endpoint) ?? [];
      byEndpoint.set(endpoint, wanted);
      wanted.push({ i, size: Number(size) });
    }
    if (byEndpoint.size === 0) return outcomes;
    const left = shared(limits);
    const reads = [...byEndpoint].flatMap(([endpoint, wanted]) =>
      batches(wanted).map(async (batch) => {
        const asked = performance.now();
        const laidOut = await this.#stage(endpoint, keys, tenant, batch, left());
        if (!laidOut) return;
        const { client, staged } = laidOut;
        const together = { client, number: staged.batch, unread: batch.length };
        for (const [at, { i, size }] of batch.entries()) {
          const answer = answers[i];
          if (!answer.ok) continue;
          const spent = performance.now() - asked;
          const leaseMs = Math.min(Number(answer.value.leaseMs), Number(staged.ttlMs)) - spent;
          const replica = replicaAt(staged.engine, Number(staged.addresses[at]), size);
          const { checksum } = answer.value;
          const value = { replicas: [replica], size, checksum, leaseMs };
          this.#batches.set(value, together);
          if (leaseMs > 0) outcomes[i] = { ok: true, value };
          else this.release(value);
        }
      }),
    );
    await Promise.all(reads);
    return outcomes;
  }

  async #stage(endpoint: string, keys: Keys, tenant: string, batch: readonly Wanted[], limits: Limits) {
    try {
      const client = await this.#client(endpoint);
      const args = {
        keys: batch.map(({ i }) => diskKey(tenant, keys.at(i))),
        sizes: batch.map(({ size }) => BigInt(size)),
      };
      const answer = await client.call(CLIENT_METHODS.batchGetOffloadObject, args, limits);
      if (!answer.ok) return undefined;
      const staged = answer.value;
      if (staged.addresses.length === batch.length) return { client, staged };
      this.#giveBack(client, staged.batch);
      return undefined;
    } catch {
      // Whoever has the disk does not answer, or answers nonsense: a miss.
      return undefined;
    }
  }

  /** An object that was found here is not read any more. */
  release(found: ObjectInfo): void {
    const batch = this.#batches.get(found);
    if (!batch) return;
    this.#batches.delete(found);
    if (--batch.unread === 0) this.#giveBack(batch.client, batch.number);
  }

  /** Nobody waits for the answer: what is not given back is kept for some seconds more. */
  #giveBack(client: RpcClient, batch: bigint): void {
    client.call(CLIENT_METHODS.releaseOffloadBuffer, { batch }, { timeoutMs: CONNECT_MS }).catch(() => {});
  }

  #client(endpoint: string): Promise<RpcClient> {
    const known = this.#clients.get(endpoint);
    if (known) return known;
    const { host, port } = parseName('endpoint', endpoint);
    const opening = RpcClient.connect(host, port, { timeoutMs: CONNECT_MS });
    this.#clients.set(endpoint, opening);
    const forget = () => {
      if (this.#clients.get(endpoint) === opening) this.#clients.delete(endpoint);
    };
    opening.then((client) => client.closed.then(forget), forget);
    return opening;
  }

  close(): void {
    for (const opening of this.#clients.values()) {
      opening.then(
        (client) => client.close(),
        () => {},
      );
    }
    this.#clients.clear();
  }
}

/** Parts of at most so many bytes, each of one object at least. */
function batches(wanted: readonly Wanted[]): Wanted[][] {
  const parts: Wanted[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const one of wanted) {
    if (bytes + one.size > MOST_BYTES) {
      parts.push([]);
      bytes = 0;
    }
    parts[parts.length - 1].push(one);
    bytes += one.size;
  }
  return parts;
}

function replicaAt(endpoint: string, offset: number, size: number): Replica {
  const nowhere = { id: 0, segment: '', segmentName: '', protocol: 'tcp' };
  return { ...nowhere, kind: 'memory', state: 'complete', endpoint, offset, size };
}
