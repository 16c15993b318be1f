/**
 * One connection of the control socket. Calls begin in the order in which they come and are answered as they complete; what
 * one read brings is answered in one write. A client that does not take its answers, or has too many calls under way, is not
 * read from until it does.
 */
import type { Socket } from 'node:net';
import { errors, MooncakeError, show } from '../core/errors.js';
import { record } from './arguments.js';
import type { Caller } from './caller.js';
import { decodeFrame, encodeFrame, FrameReader } from './frames.js';
import type { Operation } from './operations.js';
import { failureOf } from './session.js';

/** Calls under way, and bytes of answers that are not taken: with more a client is not read from. */
const MAX_CALLS = 1024;
const MAX_UNREAD_BYTES = 4 * 2 ** 20;
/** How long a client that is told to go has for its last answers. */
const LAST_WORDS_MS = 1000;

export interface ConnectionCounters {
  calls: number;
  failedCalls: number;
  badFrames: number;
}

export interface ConnectionOptions {
  readonly caller: Caller;
  readonly operations: ReadonlyMap<string, Operation>;
  readonly counters: ConnectionCounters;
  /** Told of errors of calls that want no answer, and of clients that do not speak the protocol. */
  readonly onFailure: (error: unknown) => void;
  readonly onClosed: (connection: Connection) => void;
}

export class Connection {
  readonly caller: Caller;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #frames = new FrameReader();
  #calls = 0;
  #ending: Promise<void> | undefined;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.caller = options.caller;
    socket.on('data', (chunk: Uint8Array) => this.#read(chunk));
    socket.on('drain', () => this.#flow());
    socket.on('error', () => {});
    // Nothing more comes. Our side ends when nothing of the client's sessions is under way: then it may use its blocks.
    socket.on('end', () => void this.end('its connection has ended'));
    socket.on('close', () => {
      void this.end('its connection has ended');
      options.onClosed(this);
    });
  }

  /** Ends the sessions, then the connection. */
  end(why: string): Promise<void> {
    this.#ending ??= this.#end(why);
    return this.#ending;
  }

  async #end(why: string): Promise<void> {
    await this.caller.end(why);
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), LAST_WORDS_MS).unref();
  }

  #read(chunk: Uint8Array): void {
    if (this.#ending !== undefined) return;
    this.#socket.cork();
    try {
      for (const frame of this.#frames.push(chunk)) {
        this.#call(decodeFrame(frame));
        if (this.#ending !== undefined) break;
      }
    } catch (error) {
      this.#options.counters.badFrames++;
      this.#refuse(error, 'it does not speak the protocol');
    } finally {
      this.#socket.uncork();
      this.#flow();
    }
  }

  /** Throws ERR_PROTOCOL for what is no call: nothing behind it could be trusted. */
  #call(message: unknown): void {
    const [id, name, args] = Array.isArray(message) ? message : [];
    if (!Number.isInteger(id) || id < 0 || typeof name !== 'string') throw errors.protocol('a call is [id, op, args]');
    const { caller, operations, counters } = this.#options;
    counters.calls++;
    if (!caller.greeted && name !== 'hello') throw errors.protocol('the first call is hello', name);
    try {
      const operation = operations.get(name);
      if (operation === undefined) throw errors.notSupported(`op ${show(name)}`, 'it is none of protocol 1');
      const result = operation(caller, record('args', args ?? {}));
      if (!(result instanceof Promise)) {
        this.#answer(id, null, result);
        return;
      }
      this.#calls++;
      result
        .then(
          (value) => this.#answer(id, null, value),
          (error) => this.#fail(id, args, error),
        )
        .finally(() => {
          this.#calls--;
          this.#flow();
        });
    } catch (error) {
      this.#fail(id, args, error);
      if (!caller.greeted) this.#refuse(error, 'it speaks another version');
    }
  }

  #fail(id: number, args: unknown, error: unknown): void {
    this.#options.counters.failedCalls++;
    if (id > 0) {
      this.#answer(id, error, null);
      return;
    }
    this.caller.told(args)?.report(error);
    this.#options.onFailure(error);
  }

  #answer(id: number, error: unknown, result: unknown): void {
    if (id === 0 || this.#socket.writableEnded || this.#socket.destroyed) return;
    let frame: Uint8Array;
    try {
      frame = encodeFrame([id, error === null ? null : failureOf(error), result ?? null]);
    } catch (cause) {
      // An answer that is too long for a frame.
      frame = encodeFrame([id, failureOf(cause), null]);
    }
    this.#socket.write(frame);
  }

  /** The last word: an answer to nobody's call, which says why the connection ends. */
  #refuse(error: unknown, why: string): void {
    // What the decoder itself stumbles over is no call either.
    const known = error instanceof MooncakeError ? error : errors.protocol(`a frame cannot be read (${error})`);
    this.#options.onFailure(known);
    if (!this.#socket.destroyed) this.#socket.write(encodeFrame([0, failureOf(known), null]));
    void this.end(why);
  }

  #flow(): void {
    const full = this.#calls >= MAX_CALLS || this.#socket.writableLength > MAX_UNREAD_BYTES;
    if (full === this.#socket.isPaused()) return;
    if (full) this.#socket.pause();
    else this.#socket.resume();
  }
}
