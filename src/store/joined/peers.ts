/**
 * The engines that hold the cluster's bytes, by the endpoints that the master names. A peer is opened when it is first needed
 * and asked again when it does not know an address or was lost. What happened to its moves is remembered: those that failed lately
 * are tried last, and one that could not be opened is not tried again for a moment.
 */

import type { Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { Replica } from '../../master/api.js';
import type { EngineTransfer, EngineTransferPeer } from '../../transfer/engine-transfer.js';
import type { MoveOptions, MoveReport, Peer, RemoteSegment } from '../../transfer/transfer.js';
import type { Place } from '../session.js';

/** A peer that does not answer its handshake in this time is tried no longer. */
const OPEN_MS = 3000;
/** A move that takes longer has its peer asked whether it is there. */
const DOUBT_MS = 250;
/** So long one that could not be opened is not tried again. */
const REST_MS = 1000;
/** So long after a failure a peer comes last. */
const MISTRUST_MS = 10_000;
/** Failures of the peer or of the way to it, not of the caller. */
const PEERS_FAULT: readonly string[] = [
  'ERR_PEER',
  'ERR_TIMEOUT',
  'ERR_SEGMENT',
  'ERR_PROTOCOL',
  'ERR_CORRUPT',
  'ERR_CLOSED',
];

/** What writes failed with whose bytes may lie in sockets still, and land when a peer that was stopped goes on. */
const late = new WeakSet<object>();

/** Whether bytes of a write that failed so may still land. */
export const mayLand = (failure: unknown): boolean =>
  typeof failure === 'object' && failure !== null && late.has(failure);

/** Nobody listens at the peer's own address: the process is gone, and nobody reads what is on its way to it. */
const isRefusal = ({ value, cause }: MooncakeError, address: string): boolean =>
  value === address && (cause as { code?: unknown } | undefined)?.code === 'ECONNREFUSED';

/** The host of an endpoint, brackets and all. */
const hostOf = (endpoint: string) => endpoint.slice(0, endpoint.lastIndexOf(':'));

/**
 * One run of a peer. Engines number their memory anew when they are started: what was placed with this run must touch nothing of
 * the next one.
 */
class PeerRun implements Peer {
  readonly generation: string;
  readonly #peer: KnownPeer;

  constructor(peer: KnownPeer, generation: string) {
    this.#peer = peer;
    this.generation = generation;
  }

  get address(): string {
    return this.#peer.address;
  }

  get isNear(): boolean {
    return this.#peer.isNear;
  }

  get closed(): Promise<MooncakeError> {
    return this.#peer.of(this).closed;
  }

  read(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#peer.move(this, 'read', descriptors, options);
  }

  write(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#peer.move(this, 'write', descriptors, options);
  }

  async segment(name: string): Promise<RemoteSegment> {
    return this.#peer.of(this).segment(name);
  }

  async call(service: string): Promise<never> {
    return this.#peer.of(this).call(service);
  }

  async close(): Promise<void> {
    await this.#peer.of(this).close();
  }
}

/** A peer whose failures are remembered. */
class KnownPeer {
  readonly address: string;
  readonly isNear: boolean;
  /** By performance.now(); 0: never. */
  failedAt = Number.NEGATIVE_INFINITY;
  failures = 0;
  readonly #transfer: EngineTransfer;
  #peer?: EngineTransferPeer;
  #run?: PeerRun;
  #opening?: Promise<EngineTransferPeer>;
  #refusal?: { error: unknown; until: number };

  constructor(transfer: EngineTransfer, address: string, isNear: boolean) {
    this.#transfer = transfer;
    this.address = address;
    this.isNear = isNear;
  }

  /** Throws ERR_PEER where it is lost, or another run by now. */
  of({ generation }: PeerRun): EngineTransferPeer {
    if (!this.#peer) throw errors.peer(this.address, 'it was lost');
    if (this.#peer.generation !== generation) throw errors.peer(this.address, 'it was started again');
    return this.#peer;
  }

  get isMistrusted(): boolean {
    return performance.now() - this.failedAt < MISTRUST_MS;
  }

  /** At once where its memory is known, otherwise when it was asked. */
  place(replica: Replica): Place | Promise<Place> {
    return (this.#peer && this.#within(this.#peer, replica)) ?? this.#ask(replica);
  }

  #within(peer: EngineTransferPeer, { id, offset, size }: Replica): Place | undefined {
    try {
      const { segment, offset: at } = peer.place(BigInt(offset), size);
      if (this.#run?.generation !== peer.generation) this.#run = new PeerRun(this, peer.generation);
      return { replica: id, peer: this.#run, segment, offset: at };
    } catch (error) {
      if (error instanceof MooncakeError && error.code === 'ERR_SEGMENT') return undefined;
      throw error;
    }
  }

  async #ask(replica: Replica): Promise<Place> {
    const peer = await this.#connect();
    const place = this.#within(peer, replica);
    if (!place) throw errors.segment('replica', replica.offset, `${this.address} has no such memory`);
    return place;
  }

  async #connect(): Promise<EngineTransferPeer> {
    if (this.#opening) return this.#opening;
    if (this.#refusal && performance.now() < this.#refusal.until) throw this.#refusal.error;
    this.#opening = this.#transfer.connect(this.address, { timeoutMs: OPEN_MS }).catch((error: unknown) => {
      const why = error instanceof MooncakeError ? error.code : undefined;
      if (why === 'ERR_TIMEOUT') throw this.#silence(error);
      // The master's word, not the caller's: what is no endpoint is nobody.
      if (why === 'ERR_INVALID_ARGUMENT') throw errors.peer(this.address, (error as Error).message, error);
      throw error;
    });
    try {
      this.#peer = await this.#opening;
      this.#refusal = undefined;
      return this.#peer;
    } catch (error) {
      this.#failed(error);
      this.#refusal = { error, until: performance.now() + REST_MS };
      throw error;
    } finally {
      this.#opening = undefined;
    }
  }

  #silence(error: unknown): MooncakeError {
    return errors.peer(this.address, `it has not answered for ${OPEN_MS} ms`, error);
  }

  /** Its links may be gone, or its memory: the next call asks it again. */
  #failed(error: unknown): void {
    if (!(error instanceof MooncakeError) || !PEERS_FAULT.includes(error.code)) return;
    this.failedAt = performance.now();
    this.failures++;
    this.#peer = undefined;
  }

  /**
   * The links of an engine try for seconds to get a lost peer back, and wait for a stopped one to the end: a peer that nobody
   * serves any more, or that does not answer, is given up.
   */
  async move(run: PeerRun, op: 'read' | 'write', descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    const peer = this.of(run);
    const batch = peer.submit(op, descriptors, options);
    let gone: MooncakeError | undefined;
    const doubt = setTimeout(() => {
      peer.refresh({ timeoutMs: OPEN_MS }).catch((error: MooncakeError) => {
        if (error.code === 'ERR_TIMEOUT') gone = this.#silence(error);
        else if (error.code === 'ERR_PEER') gone = error;
        else return;
        batch.cancel();
      });
    }, DOUBT_MS);
    try {
      const report = await batch.done;
      this.failedAt = Number.NEGATIVE_INFINITY;
      return report;
    } catch (error) {
      const failure = gone ?? error;
      this.#failed(failure);
      if (op === 'write' && !(gone && isRefusal(gone, this.address))) late.add(failure as object);
      throw failure;
    } finally {
      clearTimeout(doubt);
    }
  }
}

export interface PeerFigures {
  /** Its endpoint. */
  readonly peer: string;
  /** Moves and attempts to open it that failed. */
  readonly failures: number;
  /** It failed within the last 10 s: others are tried before it. */
  readonly isMistrusted: boolean;
}

export class ClusterPeers {
  readonly #transfer: EngineTransfer;
  readonly #host: string;
  readonly #known = new Map<string, KnownPeer>();

  /** `home`: an endpoint of this host. */
  constructor(transfer: EngineTransfer, home: string = transfer.address) {
    this.#transfer = transfer;
    this.#host = hostOf(home);
  }

  get figures(): PeerFigures[] {
    return [...this.#known.values()].map(({ address, failures, isMistrusted }) => ({
      peer: address,
      failures,
      isMistrusted,
    }));
  }

  /** Throws ERR_SEGMENT where it has no such memory, ERR_PEER or ERR_TIMEOUT where it does not answer. */
  place(replica: Replica): Place | Promise<Place> {
    return this.#peer(replica.endpoint).place(replica);
  }

  /** Nearest first (this process, this host, others), those that failed lately last. */
  rank(replicas: readonly Replica[]): readonly Replica[] {
    if (replicas.length < 2) return replicas;
    const cost = ({ endpoint }: Replica) => {
      if (endpoint === this.#transfer.address) return 0;
      const { isNear, isMistrusted } = this.#peer(endpoint);
      return (isMistrusted ? 3 : 1) + (isNear ? 0 : 1);
    };
    return [...replicas].sort((a, b) => cost(a) - cost(b));
  }

  #peer(endpoint: string): KnownPeer {
    let peer = this.#known.get(endpoint);
    if (!peer) {
      peer = new KnownPeer(this.#transfer, endpoint, hostOf(endpoint) === this.#host);
      this.#known.set(endpoint, peer);
    }
    return peer;
  }
}
