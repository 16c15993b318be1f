/**
 * One connection of a server: requests in, answers out, with bounds on both. Requests are started in the order in which they
 * came and answered as they finish. What came and may not be started yet waits, and while anything waits nothing more is
 * read: a caller that leaves its answers unread, or asks for much that takes long, holds up itself alone.
 *
 *   bytes ─► FrameReader ─► waiting ─► started (at most `maxCalls`) ─► answers (unread: at most `maxUnreadBytes` and one)
 */
import type { Socket } from 'node:net';
import { type Frame, FrameReader } from './frames.js';

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
  readonly #start: (frame: Frame, connection: Connection) => void;
  #waiting: Frame[] = [];
  #calls = 0;
  #isGoing = false;

  /** `start` begins a request; each ends by one `answer`. */
  constructor(socket: Socket, limits: ConnectionLimits, start: (frame: Frame, connection: Connection) => void) {
    this.remote = `${socket.remoteAddress}:${socket.remotePort}`;
    this.#socket = socket;
    this.#limits = limits;
    this.#start = start;
    const reader = new FrameReader('request', limits.maxRequestBytes, (frame) => this.#waiting.push(frame));
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('data', (chunk) => {
      try {
        reader.push(chunk);
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

  /** Ends a request. */
  answer(bytes: Uint8Array): void {
    this.#calls--;
    if (this.#socket.destroyed) return;
    this.#socket.write(bytes);
    if (this.#waiting.length > 0 && !this.#isGoing) queueMicrotask(() => this.#go());
  }

  destroy(): void {
    this.#socket.destroy();
  }

  get #isFull(): boolean {
    const { maxCalls, maxUnreadBytes } = this.#limits;
    return this.#calls >= maxCalls || this.#socket.writableLength > maxUnreadBytes;
  }

  /** Starts what may be started; reads on only where nothing waits. */
  #go(): void {
    const socket = this.#socket;
    if (this.#waiting.length > 0 && !this.#isFull) {
      const waiting = this.#waiting;
      let started = 0;
      this.#isGoing = true;
      // Answers that are there at once leave in one write.
      socket.cork();
      while (started < waiting.length && !this.#isFull) {
        this.#calls++;
        this.#start(waiting[started++], this);
      }
      socket.uncork();
      this.#isGoing = false;
      this.#waiting = started === waiting.length ? [] : waiting.slice(started);
    }
    if (this.#waiting.length > 0) socket.pause();
    else if (socket.isPaused() && !this.#isFull) socket.resume();
  }
}
