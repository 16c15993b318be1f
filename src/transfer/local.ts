/**
 * Transfer within one process: peers are found by name, bytes are copied between registered memories, messages are packed
 * and unpacked as on a wire, so that nothing shared slips through and what works here works over TCP.
 */
import { options as optionsOf, string } from '../core/check.js';
import type { Descriptors } from '../core/descriptors.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { TransferBase, TransferCore, type TransferOptions } from './base.js';
import { copyRanges } from './copy.js';
import { type Limits, watch } from './limits.js';
import { pack, packFailure, unpack, unpackFailure } from './messages.js';
import type { Move } from './move-options.js';
import { Ranges } from './ranges.js';
import { Answering } from './services.js';
import type { CallLimits, MoveOptions, MoveReport, Peer, RemoteSegment } from './transfer.js';

export interface LocalTransferOptions extends TransferOptions {
  /** The address is `local:NAME`; unique in the process. Default: a number. */
  name?: string;
}

const PREFIX = 'local:';
const MAX_MESSAGE_BYTES = 16 * 2 ** 20;
/** Requests that one end answers at a time. */
const MAX_ANSWERING = 65_536;

/** The open transfers of this process, by address. */
const transfers = new Map<string, LocalTransfer>();
let unnamed = 0;

export class LocalTransfer extends TransferBase {
  readonly address: string;
  readonly #peers = new Map<string, LocalPeer>();

  constructor(options?: LocalTransferOptions) {
    super(new TransferCore(optionsOf('options', options)));
    const name = options?.name === undefined ? `${++unnamed}` : string('options.name', options.name);
    this.address = `${PREFIX}${name}`;
    if (name === '' || transfers.has(this.address)) {
      throw errors.invalidArgument('options.name', name, 'a name that no open transfer of this process has');
    }
    transfers.set(this.address, this);
  }

  async connect(address: string, limits?: CallLimits): Promise<Peer> {
    this.checkOpen();
    string('address', address);
    if (!address.startsWith(PREFIX)) throw errors.invalidArgument('address', address, '"local:NAME"');
    this.core.limits(limits);
    const known = this.#peers.get(address);
    if (known) return known;
    const remote = transfers.get(address);
    if (!remote) throw errors.peer(address, 'no open transfer of this process has the name');
    const ours = this.#end(remote);
    const theirs = remote.#end(this);
    ours.join(theirs);
    theirs.join(ours);
    return ours;
  }

  /** Our end of a link to `remote`. Of a link to ourselves, the first end is the one that `connect` gives. */
  #end(remote: LocalTransfer): LocalPeer {
    const { address } = remote;
    const peer: LocalPeer = new LocalPeer(this.core, address, remote.generation, () => {
      if (this.#peers.get(address) === peer) this.#peers.delete(address);
    });
    if (!this.#peers.has(address)) this.#peers.set(address, peer);
    return peer;
  }

  protected async disconnect(): Promise<void> {
    transfers.delete(this.address);
    await Promise.all([...this.#peers.values()].map((peer) => peer.close()));
  }
}

/** One end of a link between two transfers. */
class LocalPeer implements Peer {
  readonly address: string;
  readonly generation: string;
  readonly closed: Promise<MooncakeError>;
  readonly #core: TransferCore;
  readonly #answering: Answering;
  /** Operations under way at this end, by how to end them. */
  readonly #pending = new Set<(error: MooncakeError) => void>();
  readonly #forget: () => void;
  #other!: LocalPeer;
  #ended?: MooncakeError;
  #resolveClosed!: (reason: MooncakeError) => void;
  #nextId = 0;

  constructor(core: TransferCore, address: string, generation: string, forget: () => void) {
    this.address = address;
    this.generation = generation;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#core = core;
    this.#answering = new Answering(core.services, MAX_ANSWERING);
    this.#forget = forget;
  }

  join(other: LocalPeer): void {
    this.#other = other;
  }

  #checkOpen(): void {
    if (this.#ended) throw this.#ended;
  }

  async segment(name: string, limits?: CallLimits): Promise<RemoteSegment> {
    this.#checkOpen();
    this.#core.limits(limits);
    const segment = this.#other.#core.find(string('name', name));
    if (!segment) throw errors.segment('name', name, `${this.address} has no segment of that name`);
    return { id: segment.id, name, length: segment.length };
  }

  async read(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.#checkOpen();
    return this.#core.moved('read', this.#core.move(descriptors, options), this, (move) => {
      const source = new Ranges(move.descriptors, 'source', this.#other.#core.segments);
      return this.#move(move, source, new Ranges(move.descriptors, 'destination', this.#core.segments));
    });
  }

  async write(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.#checkOpen();
    return this.#core.moved('write', this.#core.move(descriptors, options), this, (move) => {
      const source = new Ranges(move.descriptors, 'source', this.#core.segments);
      const theirs = this.#other.#core.segments;
      return this.#move(move, source, new Ranges(move.descriptors, 'destination', theirs, { peerWrites: true }));
    });
  }

  #move(move: Move, source: Ranges, destination: Ranges): Promise<MoveReport> {
    let end!: (error: MooncakeError) => void;
    return copyRanges(move.descriptors, source, destination, {
      ...move,
      onStart: (how) => this.#pending.add((end = how)),
      onEnd: () => this.#pending.delete(end),
    });
  }

  async call(service: string, message: unknown, limits?: CallLimits): Promise<unknown> {
    this.#checkOpen();
    string('service', service);
    const checked = this.#core.limits(limits);
    const packed = pack('message', message, MAX_MESSAGE_BYTES);
    const answer = await this.#request(service, packed, checked);
    return unpack(answer);
  }

  #request(service: string, packed: Uint8Array, limits: Limits): Promise<Uint8Array> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        stop();
        this.#pending.delete(end);
        settle();
      };
      const end = (error: MooncakeError) => {
        finish(() => reject(error));
        this.#other.#answering.cancel(id, error);
      };
      const stop = watch(`${service} at ${this.address}`, limits, end);
      this.#pending.add(end);
      this.#other.#answer(id, service, packed).then(
        (answer) => finish(() => resolve(answer)),
        // As over a wire: the code and the message cross, the object does not.
        (error) => finish(() => reject(unpackFailure(packFailure(error)))),
      );
    });
  }

  async #answer(id: number, service: string, packed: Uint8Array): Promise<Uint8Array> {
    const answer = await this.#answering.run(id, service, unpack(packed), this);
    return pack('answer', answer, MAX_MESSAGE_BYTES);
  }

  async close(): Promise<void> {
    this.#end(errors.closed(`the connection to ${this.address}`));
    this.#other.#end(errors.closed(`the other end of the connection to ${this.#other.address}`));
  }

  #end(reason: MooncakeError): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#forget();
    for (const end of [...this.#pending]) end(reason);
    this.#answering.end(reason);
    this.#resolveClosed(reason);
  }
}
