/**
 * One connection, as a peer. Both sides serve and call over it at once. It opens with a preamble and a hello of each side,
 * and ends once, with one reason: a goodbye, a lost socket, silence, or bytes that no peer of ours would send.
 */
import type { Socket } from 'node:net';
import { string } from '../../core/check.js';
import type { Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { TransferCore } from '../base.js';
import { type Limits, shared, watch } from '../limits.js';
import { unpackFailure } from '../messages.js';
import type { Move } from '../move-options.js';
import type { CallLimits, MoveOptions, MoveReport, Peer, RemoteSegment } from '../transfer.js';
import { type AcceleratedPeer, type Accelerator, reachable } from './accelerator.js';
import { type CallLink, Calls } from './calls.js';
import { FRAME, type Header, preamble } from './frames.js';
import { HELLO_BYTES, type Hello, packHello, unpackHello } from './hello.js';
import { type DataTarget, Input } from './input.js';
import { Moves } from './moves.js';
import { Output } from './output.js';
import { Serving } from './serving.js';

/** A goodbye that the socket does not take in this time is not waited for. */
const CLOSE_MS = 500;
/** A connection that has not said hello by then is closed. */
const HELLO_MS = 5000;
/** A silent peer is given so many of its own heartbeats, where it beats slower than we do. */
const MISSED_BEATS = 3.6;
/** A peer that beats but does not read: it may take so many times `deadAfterMs` for the last pieces of a move. */
const STUCK_FACTOR = 20;

export interface PeerSettings {
  readonly core: TransferCore;
  /** What we say of ourselves. */
  readonly hello: Hello;
  readonly accelerator?: Accelerator;
  readonly deadAfterMs: number;
  /** Told once, when the connection has ended. */
  readonly onEnd: (peer: TcpPeer, reason: MooncakeError) => void;
}

export class TcpPeer implements Peer {
  readonly closed: Promise<MooncakeError>;
  readonly #settings: PeerSettings;
  readonly #socket: Socket;
  readonly #input: Input;
  readonly #output: Output;
  readonly #calls: Calls;
  readonly #moves: Moves;
  readonly #serving: Serving;
  #accelerated?: AcceleratedPeer;
  /** Where it was opened, or undefined until the peer says where it listens. */
  #address?: string;
  #hello?: Hello;
  #ended?: MooncakeError;
  #resolveClosed!: (reason: MooncakeError) => void;
  readonly #gone: Promise<void>;
  /** Callers of `opened` that still wait, by how to settle them. */
  readonly #waiting = new Set<(error?: MooncakeError) => void>();
  #nextId = 0;
  #connected = false;
  /** Milliseconds in which nothing was heard although our event loop ran. */
  #silentMs = 0;
  #ageMs = 0;

  /** `address` where we opened the connection. The socket may still be connecting; `receive` gets its bytes. */
  constructor(settings: PeerSettings, socket: Socket, address?: string) {
    this.#settings = settings;
    this.#socket = socket;
    this.#address = address;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#gone = new Promise((resolve) => {
      socket.once('close', () => {
        this.#end(errors.peer(this.address, 'the connection was closed'));
        resolve();
      });
    });
    this.#input = new Input(this);
    const fail = (error: Error) => this.fail(error);
    this.#output = new Output(socket, STUCK_FACTOR * settings.deadAfterMs, fail);
    const peer = this;
    const link: CallLink = {
      core: settings.core,
      output: this.#output,
      peer,
      graceMs: settings.deadAfterMs,
      get address() {
        return peer.address;
      },
      get peerFrameBytes() {
        return peer.#hello?.maxFrameBytes ?? HELLO_BYTES;
      },
      nextId: () => this.#takeId(),
      findNative: (segment) => settings.accelerator?.find(segment),
      fail,
    };
    this.#calls = new Calls(link);
    this.#moves = new Moves(link);
    this.#serving = new Serving(link);
    socket.setNoDelay(true);
    socket.on('error', (error: Error) => this.#end(errors.peer(this.address, error.message, error)));
    socket.once('end', () => this.#end(errors.peer(this.address, 'it closed the connection')));
    socket.once('connect', () => this.#start());
    if (!socket.connecting) this.#start();
  }

  get address(): string {
    return this.#address ?? this.#hello?.address ?? `tcp://${this.#socket.remoteAddress}:${this.#socket.remotePort}`;
  }

  get generation(): string {
    return this.#hello?.generation ?? '';
  }

  #start(): void {
    this.#connected = true;
    this.#output.raw(preamble());
    this.#output.send(FRAME.hello, 0, packHello(this.#settings.hello));
  }

  /** Waits for the peer's hello; the last caller to give up ends the attempt. */
  async opened(limits: Limits): Promise<this> {
    if (this.#ended) throw this.#ended;
    if (this.#hello) return this;
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: MooncakeError) => {
        stop();
        this.#waiting.delete(settle);
        if (error) reject(error);
        else resolve();
      };
      const stop = watch(`connecting to ${this.address}`, limits, (error) => {
        settle(error);
        if (this.#waiting.size === 0) this.#end(error);
      });
      this.#waiting.add(settle);
    });
    return this;
  }

  /** Bytes from the socket. */
  receive(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#silentMs = 0;
    try {
      this.#input.push(bytes);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  /** The bytes or the behaviour of the peer cannot be gone on with. */
  fail(error: Error): void {
    this.#end(error instanceof MooncakeError ? error : errors.peer(this.address, error.message, error));
  }

  /**
   * Time has passed in which the event loop ran: `elapsedMs` is what the clock says, but never more than the timer's
   * period or two, so that a peer is not called dead for what waits unread because we were busy or stopped. The next tick
   * comes after `periodMs`.
   */
  tick(elapsedMs: number, periodMs: number): void {
    if (this.#ended || !this.#connected) return;
    const { hello, deadAfterMs } = this.#settings;
    this.#silentMs += elapsedMs;
    this.#ageMs += elapsedMs;
    const patience = Math.max(deadAfterMs, MISSED_BEATS * (this.#hello?.heartbeatMs ?? 0));
    if (this.#silentMs >= patience) {
      this.#end(errors.peer(this.address, `silent for ${Math.round(this.#silentMs)} ms`));
    } else if (!this.#hello && this.#ageMs >= HELLO_MS) {
      this.#end(errors.peer(this.address, 'no hello'));
    } else if (performance.now() + periodMs - this.#output.sentAt > hello.heartbeatMs) {
      this.#output.send(FRAME.heartbeat);
    }
  }

  // FrameSink

  get maxFrameBytes(): number {
    return this.#hello ? this.#settings.hello.maxFrameBytes : HELLO_BYTES;
  }

  data(header: Header): DataTarget {
    if (!this.#hello) throw errors.protocol('data before a hello', header);
    return header.type === FRAME.readData ? this.#moves.data(header) : this.#serving.data(header);
  }

  control(header: Header, payload: Uint8Array): void {
    const { type, id } = header;
    if ((type === FRAME.hello) !== (this.#hello === undefined)) throw errors.protocol('not one hello, first', header);
    switch (type) {
      case FRAME.hello:
        this.#hello = unpackHello(payload);
        this.#accelerate(this.#hello);
        for (const settle of [...this.#waiting]) settle();
        return;
      case FRAME.heartbeat:
        return;
      case FRAME.goodbye:
        this.#end(errors.closed(`the other end of the connection to ${this.address}`));
        return;
      case FRAME.call:
        this.#checkNew(id);
        this.#calls.serve(header, payload);
        return;
      case FRAME.read:
        this.#checkNew(id);
        this.#serving.read(header, payload);
        return;
      case FRAME.write:
        this.#checkNew(id);
        this.#serving.write(header, payload);
        return;
      case FRAME.answer:
        this.#calls.answered(id, payload);
        return;
      case FRAME.done:
        if (!this.#moves.ended(id)) throw errors.protocol('the end of a move that nobody asked for', header);
        return;
      case FRAME.failure: {
        const error = unpackFailure(payload);
        if (this.#calls.failed(id, error) || this.#moves.ended(id, error)) return;
        throw errors.protocol('the failure of what nobody asked for', header);
      }
      case FRAME.cancel: {
        const error = errors.aborted('the peer gave up');
        this.#calls.cancel(id, error);
        this.#serving.cancel(id, error);
        return;
      }
      default:
        throw errors.protocol('a frame of an unknown type', type);
    }
  }

  #accelerate({ engine }: Hello): void {
    const { accelerator } = this.#settings;
    const host = this.#socket.remoteAddress;
    if (!accelerator || !engine || !host) return;
    const limits = { timeoutMs: this.#settings.core.timeoutMs };
    const lookUp = (segment: number) => this.#calls.native(segment, limits);
    this.#accelerated = accelerator.peer(this.address, reachable(engine, host), lookUp);
  }

  /** By the accelerator where it can, in what time that leaves over the connection otherwise. */
  async #move(kind: 'read' | 'write', move: Move): Promise<MoveReport> {
    if (!this.#accelerated) return this.#moves.run(kind, move);
    const left = shared(move.limits);
    const report = await this.#accelerated.run(kind, move);
    if (report) return report;
    this.#checkOpen();
    return this.#moves.run(kind, { ...move, limits: left() });
  }

  #checkNew(id: number): void {
    if (this.#calls.serves(id) || this.#serving.has(id)) throw errors.protocol('a request number used twice', id);
  }

  /** Numbers are not used twice on a connection. */
  #takeId(): number {
    if (this.#nextId > 0xffff_ffff) throw errors.peer(this.address, 'the connection is worn out; open another');
    return this.#nextId++;
  }

  // Peer

  #checkOpen(): void {
    if (this.#ended) throw this.#ended;
  }

  async segment(name: string, limits?: CallLimits): Promise<RemoteSegment> {
    this.#checkOpen();
    string('name', name);
    const { id, length } = await this.#calls.segment(name, this.#settings.core.limits(limits));
    this.#accelerated?.learn(id);
    return { id, name, length };
  }

  async read(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.#checkOpen();
    const { core } = this.#settings;
    return core.moved('read', core.move(descriptors, options), this, (move) => this.#move('read', move));
  }

  async write(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.#checkOpen();
    const { core } = this.#settings;
    return core.moved('write', core.move(descriptors, options), this, (move) => this.#move('write', move));
  }

  async call(service: string, message: unknown, limits?: CallLimits): Promise<unknown> {
    this.#checkOpen();
    return this.#calls.call(string('service', service), message, this.#settings.core.limits(limits));
  }

  async close(): Promise<void> {
    const reason = errors.closed(`the connection to ${this.address}`);
    if (!this.#connected) this.#end(reason);
    if (!this.#ended) {
      this.#output.send(FRAME.goodbye);
      this.#finish(reason);
      this.#socket.end();
      const timer = setTimeout(() => this.#socket.destroy(), CLOSE_MS);
      this.#socket.once('close', () => clearTimeout(timer));
    }
    await this.#gone;
  }

  #end(reason: MooncakeError): void {
    this.#finish(reason);
    this.#socket.destroy();
  }

  /** Ends everything but the socket. */
  #finish(reason: MooncakeError): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#accelerated?.end(reason);
    this.#input.stop();
    this.#output.end();
    for (const settle of [...this.#waiting]) settle(reason);
    this.#calls.end(reason);
    this.#moves.end(reason);
    this.#serving.end();
    this.#resolveClosed(reason);
    this.#settings.onEnd(this, reason);
  }
}
