/**
 * The cluster of an attached store: metadata by requests to the owner, bytes straight to and from its segments. A session
 * is one connection; when it is lost the next call makes another, and what began on the old one ends with it.
 */
import { integer, options as object, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import type { Replica, Uuid } from '../master/api.js';
import { MAX_TIMEOUT_MS } from '../transfer/limits.js';
import type { CallLimits, Peer, RemoteSegment, Transfer } from '../transfer/transfer.js';
import type { IntegrityOptions } from './options.js';
import { RemoteMetadata } from './remote.js';
import { Claims, checkTransfer, type Place, type Session } from './session.js';
import { type Hello, SERVICE, unpackHello, VERSION } from './wire.js';

export interface AttachOptions extends IntegrityOptions {
  /** The transfer by which the owner is reached; it stays the caller's. */
  transfer: Transfer;
  /** Where the owner serves its store: its transfer's address. */
  address: string;
  /** Deadline of calls that name none, in ms. Default 30,000. */
  timeoutMs?: number;
}

interface Reached {
  readonly peer: Peer;
  readonly segment: RemoteSegment;
}

class RemoteSession implements Session {
  readonly client: Uuid;
  readonly claims = new Claims();
  readonly putWindowMs: number;
  readonly #peer: Peer;
  readonly #home: string;
  readonly #transfer: Transfer;
  readonly #limits: CallLimits;
  readonly #lost: () => void;
  readonly #segments = new Map<Uuid, Reached | Promise<Reached>>();

  /** `lost` is called when the owner does not know the client any more. */
  constructor(peer: Peer, hello: Hello, transfer: Transfer, limits: CallLimits, lost: () => void) {
    this.#peer = peer;
    this.client = hello.client;
    this.#home = hello.home;
    // Half of it for what is under way when it ends, and for clocks that differ.
    this.putWindowMs = hello.putReleaseMs / 2;
    this.#transfer = transfer;
    this.#limits = limits;
    this.#lost = lost;
  }

  metadata(limits: CallLimits = this.#limits): RemoteMetadata {
    return new RemoteMetadata(this.#peer, this.client, limits, this.#lost);
  }

  now(): number {
    return performance.now();
  }

  /** Ends the client and its puts. */
  async bye(): Promise<void> {
    await this.claims.close();
    await this.#peer.call(SERVICE, { call: 'bye', client: this.client }, this.#limits);
  }

  suspect(keys: Keys, _replicas: readonly number[], tenant: string, limits?: CallLimits): Promise<void> {
    return this.metadata(limits).suspect(keys, tenant);
  }

  rank(replicas: readonly Replica[]): readonly Replica[] {
    return replicas;
  }

  place(replica: Replica): Place | Promise<Place> {
    let reached = this.#segments.get(replica.segment);
    if (reached === undefined) this.#segments.set(replica.segment, (reached = this.#reach(replica)));
    return reached instanceof Promise ? reached.then((found) => within(replica, found)) : within(replica, reached);
  }

  async #reach({ segment: id, segmentName, endpoint }: Replica): Promise<Reached> {
    try {
      const peer = endpoint === this.#home ? this.#peer : await this.#transfer.connect(endpoint, this.#limits);
      const segment = await peer.segment(segmentName, this.#limits);
      // Its name may be that of another segment by now; an id is never used twice.
      const mounted = (await this.metadata().segments()).some((each) => each.id === id && each.name === segmentName);
      if (!mounted) throw errors.segment('segment', segmentName, 'is not mounted any more');
      const reached = { peer, segment };
      this.#segments.set(id, reached);
      return reached;
    } catch (error) {
      this.#segments.delete(id);
      throw error;
    }
  }
}

function within({ id, offset, size }: Replica, { peer, segment }: Reached): Place {
  if (offset + size > segment.length) {
    throw errors.protocol(`a replica leaves its segment ${segment.name}`, offset + size);
  }
  return { replica: id, peer, segment: segment.id, offset };
}

export class AttachedCluster {
  readonly transfer: Transfer;
  readonly #address: string;
  readonly #limits: CallLimits;
  #session: Promise<RemoteSession> | undefined;
  #closed = false;

  /** @throws ERR_INVALID_ARGUMENT naming the option */
  constructor(options: AttachOptions) {
    const { transfer, address, timeoutMs = 30_000 } = object('options', options);
    checkTransfer(transfer);
    this.transfer = transfer;
    this.#address = string('address', address);
    this.#limits = { timeoutMs: integer('timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS) };
  }

  /** The connection, made anew when the last one was lost. Throws ERR_PEER. */
  session(): Promise<RemoteSession> {
    if (this.#closed) return Promise.reject(errors.closed('the store'));
    if (this.#session === undefined) {
      const session = this.#connect(() => {
        if (this.#session === session) this.#session = undefined;
      });
      this.#session = session;
    }
    return this.#session;
  }

  async #connect(lost: () => void): Promise<RemoteSession> {
    try {
      const peer = await this.transfer.connect(this.#address, this.#limits);
      const hello = { call: 'hello', version: VERSION };
      const answer = unpackHello(await peer.call(SERVICE, hello, this.#limits));
      if (answer.engines !== undefined) {
        throw errors.notSupported(
          'attaching to a store node by a transfer',
          `attach with { node: '${this.#address}' }`,
        );
      }
      void peer.closed.then(lost);
      return new RemoteSession(peer, answer, this.transfer, this.#limits, lost);
    } catch (error) {
      lost();
      throw error;
    }
  }

  /** Tells the owner, which takes back what was not ended. The connection stays: others may use it. */
  async close(): Promise<void> {
    this.#closed = true;
    const session = await this.#session?.catch(() => undefined);
    await session?.bye().catch(() => {});
  }
}
