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

/** Up to so many bytes, answers are put into one piece: cheaper than a list of them, for us and for the kernel. */
const JOIN_BYTES = 64 * 1024;
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
  /** Answers that were there at once and leave in one write; undefined while no requests are being started. */
  #answers: Uint8Array[] | undefined;
  #answerBytes = 0;

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

  /** Ends a request. */
  answer(bytes: Uint8Array): void {
    this.#calls--;
    if (this.#socket.destroyed) return;
    if (this.#answers) {
      this.#answers.push(bytes);
      this.#answerBytes += bytes.length;
      return;
    }
    this.#socket.write(bytes);
    if (this.#waiting.length > 0) queueMicrotask(() => this.#go());
  }

  destroy(): void {
    this.#socket.destroy();
  }

  get #isFull(): boolean {
    const { maxCalls, maxUnreadBytes } = this.#limits;
    return this.#calls >= maxCalls || this.#socket.writableLength + this.#answerBytes > maxUnreadBytes;
  }

  /** Sends what was answered while requests were started. */
  #flush(answers: readonly Uint8Array[]): void {
    const size = this.#answerBytes;
    this.#answers = undefined;
    this.#answerBytes = 0;
    if (answers.length === 0 || this.#socket.destroyed) return;
    if (answers.length === 1 || size <= JOIN_BYTES) {
      this.#socket.write(answers.length === 1 ? answers[0] : Buffer.concat(answers, size));
      return;
    }
    this.#socket.cork();
    for (const answer of answers) this.#socket.write(answer);
    this.#socket.uncork();
  }

  /** Starts what may be started; reads on only where nothing waits. */
  #go(): void {
    const socket = this.#socket;
    if (this.#waiting.length > 0 && !this.#isFull) {
      const waiting = this.#waiting;
      let started = 0;
      this.#answers = [];
      while (started < waiting.length && !this.#isFull) {
        this.#calls++;
        this.#start(waiting[started++], this);
      }
      this.#flush(this.#answers);
      this.#waiting = started === waiting.length ? [] : waiting.slice(started);
    }
    if (this.#waiting.length > 0) {
      socket.pause();
      // Where the kernel took everything at once no `drain` follows; others get their turn first.
      if (!this.#isFull) setImmediate(() => this.#go());
    } else if (socket.isPaused() && !this.#isFull) socket.resume();
  }
}
