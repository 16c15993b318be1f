/**
 * One connection of a server: requests in, answers out, with bounds on both. Requests are started in the order in which they
 * came and answered as they finish. What came and may not be started yet waits, and while anything waits nothing more is
 * read: a caller that leaves its answers unread, or asks for much that takes long, holds up itself alone.
 *
 *   bytes ─► FrameReader ─► waiting ─► started (at most `maxCalls`) ─► answers (unread: at most `maxUnreadBytes` and one)
 */
import type { Socket } from 'node:net';
import { ANSWER_BYTES, type Frame, FrameReader, writeAnswerHeader } from './frames.js';
import type { Outbox } from './outbox.js';
import { packInto, sizeOf } from './struct-pack.js';
import type { Type } from './types.js';

export interface ConnectionLimits {
  maxRequestBytes: number;
  /** Bytes of unread answers from which no request is started. */
  maxUnreadBytes: number;
  /** Requests under way from which no other is started. */
  maxCalls: number;
}

/** Silence after which the kernel asks whether the peer still is there. */
const KEEP_ALIVE_MS = 60_000;

export class Connection {
  /** host:port of the caller. */
  readonly remote: string;
  readonly #socket: Socket;
  readonly #limits: ConnectionLimits;
  readonly #outbox: Outbox;
  readonly #start: (frame: Frame, connection: Connection) => void;
  #waiting: Frame[] = [];
  #calls = 0;
  /** Answers that are there at once leave together. */
  #isStarting = false;

  /** `start` begins a request; each ends by one `answer`. */
  constructor(
    socket: Socket,
    limits: ConnectionLimits,
    outbox: Outbox,
    start: (frame: Frame, connection: Connection) => void,
  ) {
    this.remote = `${socket.remoteAddress}:${socket.remotePort}`;
    this.#socket = socket;
    this.#limits = limits;
    this.#outbox = outbox;
    this.#start = start;
    const reader = new FrameReader('request', limits.maxRequestBytes, (frame) => this.#waiting.push(frame));
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('data', (chunk) => {
      try {
        // Views of a Buffer cost more than those of plain bytes, and every request is made of some.
        reader.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      } catch {
        // No frame of this protocol: stock closes as well.
        socket.destroy();
        return;
      }
      this.#go();
    });
    socket.on('drain', () => this.#go());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#waiting = [];
    });
  }

  /** Ends a request. Where the value cannot be written it throws, and the request still waits for its answer. */
  answer<T>(sequence: number, error: number, type: Type<T>, value: T): void {
    if (!this.#socket.destroyed) this.#write(sequence, error, type, value);
    this.#calls--;
    if (this.#isStarting) return;
    this.#outbox.flush(this.#socket);
    if (this.#waiting.length > 0) queueMicrotask(() => this.#go());
  }

  #write<T>(sequence: number, error: number, type: Type<T>, value: T): void {
    const size = sizeOf(type, value);
    const whole = ANSWER_BYTES + size.bytes;
    const writer = this.#outbox.take(whole);
    try {
      writeAnswerHeader(writer, sequence, error, size.bytes);
      packInto(writer, type, value, size);
    } catch (reason) {
      this.#outbox.drop(whole);
      throw reason;
    }
  }

  destroy(): void {
    this.#socket.destroy();
  }

  get #isFull(): boolean {
    const { maxCalls, maxUnreadBytes } = this.#limits;
    return (
      this.#calls >= maxCalls ||
      this.#socket.writableLength + (this.#isStarting ? this.#outbox.bytes : 0) > maxUnreadBytes
    );
  }

  /** Starts what may be started; reads on only where nothing waits. */
  #go(): void {
    const socket = this.#socket;
    if (this.#waiting.length > 0 && !this.#isFull) {
      const waiting = this.#waiting;
      let started = 0;
      this.#isStarting = true;
      try {
        while (started < waiting.length && !this.#isFull) {
          this.#calls++;
          this.#start(waiting[started++], this);
        }
      } finally {
        // Also where a hook throws: what is left in the outbox would be the next connection's.
        this.#isStarting = false;
        this.#outbox.flush(socket);
        this.#waiting = started === waiting.length ? [] : waiting.slice(started);
      }
    }
    if (this.#waiting.length > 0) {
      socket.pause();
      // Where the kernel took everything at once no `drain` follows; others get their turn first.
      if (!this.#isFull) setImmediate(() => this.#go());
    } else if (socket.isPaused() && !this.#isFull) socket.resume();
  }
}
