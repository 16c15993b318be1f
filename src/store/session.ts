/**
 * What the data path knows of the cluster: who it is there, the metadata service, and how to reach the bytes of a
 * replica. An embedded store has one session for life; an attached one has a session for each connection, and a put or
 * get stays with the session that it began on, so that what one run of the owner said is never read from the next.
 */
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { MetadataClient, ObjectInfo, Replica, Uuid } from '../master/api.js';
import type { CallLimits, Peer, Transfer } from '../transfer/transfer.js';
import type { SegmentMemory } from './memory.js';

/** Where a replica's bytes are reached: in this process, or through a peer's segment. `replica` is its id, `offset` in bytes. */
export type Place =
  | { readonly replica: number; readonly memory: SegmentMemory; readonly peer?: undefined; readonly offset: number }
  | {
      readonly replica: number;
      readonly memory?: undefined;
      readonly peer: Peer;
      readonly segment: number;
      readonly offset: number;
    };

export interface Session {
  readonly client: Uuid;
  /** The puts that this client has not ended. */
  readonly claims: Claims;
  /** Milliseconds from the start of a put in which its writes must have ended: later its room may be another's. */
  readonly putWindowMs: number;
  /** The metadata service; calls of one in another process end by these limits. */
  metadata(limits?: CallLimits): MetadataClient;
  /** In the order in which they are best tried. */
  rank(replicas: readonly Replica[]): readonly Replica[];
  /** Throws ERR_SEGMENT where the segment is gone, ERR_PEER where its owner is. */
  place(replica: Replica): Place | Promise<Place>;
  /**
   * These replicas did not have their checksum when they were read: objects that are corrupt where they lie are removed,
   * so that they are computed and stored anew. Bytes that changed on their way cost no other reader the object, nor does
   * what was stored in its place since.
   */
  suspect(keys: Keys, replicas: readonly number[], tenant: string, limits?: CallLimits): Promise<void>;
  /** Milliseconds, by the clock that leases are measured with. */
  now(): number;
  /** Whether bytes of the write that failed so may still land. Where it is not said, none does. */
  mayLand?(failure: unknown): boolean;
  /** A get has read what it found there, or given it up: what was laid out for it is not needed any more. */
  release?(found: ObjectInfo): void;
}

/** A key of a tenant as a string, whatever its bytes. */
export function keyName(key: Uint8Array, tenant: string): string {
  return `${tenant}\n${Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1')}`;
}

/**
 * Which batch of a client is writing a key. The service knows clients, not batches: a put that did not end in time may be
 * preempted by another of the same client, and then the first must neither end nor revoke it.
 */
export class Claims {
  readonly #batches = new Map<string, Claimant>();
  readonly #starts = new Set<Start>();
  #closed = false;
  #lost = false;

  /** Throws ERR_CLOSED when no put may start any more. */
  check(): void {
    if (this.#closed) throw errors.closed('the store');
  }

  /** A start is under way, and the service may have preempted a put of ours for it; until the function returned is called. */
  starting(names: readonly string[], answer: Promise<unknown>): () => void {
    const start = { names, answer };
    this.#starts.add(start);
    return () => this.#starts.delete(start);
  }

  /**
   * Waits for the starts under way of these keys: before their answers nobody knows whose the puts are. Where the answers
   * do not come in time, nobody's.
   */
  async answered(names: readonly string[], timeoutMs: number): Promise<void> {
    const until = performance.now() + timeoutMs;
    while (this.#starts.size > 0) {
      const asked = new Set(names);
      const starts = [...this.#starts].filter((start) => start.names.some((name) => asked.has(name)));
      if (starts.length === 0) return;
      const answers = Promise.allSettled(starts.map(({ answer }) => answer));
      if (!(await inTime(answers, until - performance.now()))) return this.forget(names);
    }
  }

  take(name: string, batch: Claimant): void {
    if (!this.#lost) this.#batches.set(name, batch);
  }

  /** The service has forgotten all puts: one that it has under a key by now is another, and so is who has its room. */
  lose(): void {
    this.#lost = true;
    const batches = new Set(this.#batches.values());
    this.#batches.clear();
    for (const batch of batches) batch.lose();
  }

  /** A start of these keys has no known end: whoever had them cannot know whether they still are his. */
  forget(names: readonly string[]): void {
    for (const name of names) this.#batches.delete(name);
  }

  /** Gives the claim back; false where another batch has it by now. */
  drop(name: string, batch: Claimant): boolean {
    return this.#batches.get(name) === batch && this.#batches.delete(name);
  }

  /** Ends every batch, those too that are being started: no write of this client lands anywhere any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled([...this.#starts].map(({ answer }) => answer));
    await Promise.allSettled([...new Set(this.#batches.values())].map((batch) => batch.abort()));
  }
}

/** False where the work has not ended so many milliseconds later. */
async function inTime(work: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, milliseconds, false);
  });
  const ended = await Promise.race([work.then(() => true), late]);
  clearTimeout(timer);
  return ended;
}

interface Claimant {
  abort(): Promise<void>;
  /** Its writes end: their room is another's. */
  lose(): void;
}

interface Start {
  readonly names: readonly string[];
  readonly answer: Promise<unknown>;
}

/** A random id for a client or a segment. */
export function uuid(): Uuid {
  return crypto.randomUUID().replaceAll('-', '');
}

export function checkTransfer(transfer: unknown): void {
  if (typeof (transfer as Transfer | undefined)?.register === 'function') return;
  throw errors.invalidArgument('transfer', transfer, 'a Transfer');
}
