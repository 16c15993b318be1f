/**
 * One connection on which a peer reads and writes our memory by Mooncake's data stream, request by request. What it asks for
 * is checked against our segments before a byte moves; whatever is wrong ends the connection.
 */
import type { Socket } from 'node:net';
import { hold, type Segment } from '../segments.js';
import type { PortableMemory } from './portable-memory.js';
import { REQUEST_BYTES, readRequest, statusBytes } from './portable-wire.js';

/** What is handed to the socket at once. */
const PIECE_BYTES = 256 * 1024;
/** A peer that takes or sends nothing for so long in the middle of a request is gone: it holds a segment. */
const STALL_MS = 10_000;

export class DataServing {
  readonly #socket: Socket;
  readonly #memory: PortableMemory;
  readonly #header = new Uint8Array(REQUEST_BYTES);
  #headerBytes = 0;
  /** Of the request being served: what it touches, from where, how much is left. */
  #segment?: Segment;
  #offset = 0;
  #left = 0;
  #answersStatus = false;
  #release = () => {};
  #sending = false;
  /** What came while an answer was on its way. */
  #waiting: Uint8Array[] = [];

  constructor(socket: Socket, memory: PortableMemory) {
    this.#socket = socket;
    this.#memory = memory;
    socket.on('timeout', () => socket.destroy());
    socket.on('close', () => this.#release());
  }

  /** `bytes` is the socket's again when this returns. */
  receive(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#socket.destroyed) {
      const rest = bytes.subarray(at);
      if (this.#sending) {
        this.#waiting.push(new Uint8Array(rest));
        this.#socket.pause();
        return;
      }
      at += this.#segment ? this.#write(rest) : this.#collect(rest);
    }
  }

  #collect(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, REQUEST_BYTES - this.#headerBytes);
    this.#header.set(taken, this.#headerBytes);
    this.#headerBytes += taken.length;
    if (this.#headerBytes === REQUEST_BYTES) this.#begin();
    return taken.length;
  }

  #begin(): void {
    this.#headerBytes = 0;
    const { valid, address, size, write, status } = readRequest(this.#header);
    const found = valid ? this.#memory.find(address, size) : undefined;
    if (!found || (write && !found.segment.writable)) {
      if (status) this.#socket.end(statusBytes(false), () => this.#socket.destroy());
      else this.#socket.destroy();
      return;
    }
    this.#release = hold([found.segment]);
    this.#segment = found.segment;
    this.#offset = found.offset;
    this.#left = size;
    this.#answersStatus = status;
    this.#socket.setTimeout(STALL_MS);
    if (write) return;
    if (status) this.#socket.write(statusBytes(true));
    this.#sending = true;
    this.#send();
  }

  #write(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, this.#left);
    if (!this.#present()) return 0;
    this.#segment!.memory.set(taken, this.#offset);
    this.#offset += taken.length;
    this.#left -= taken.length;
    if (this.#left === 0) {
      this.#release();
      this.#finish();
      if (this.#answersStatus) this.#socket.write(statusBytes(true));
    }
    return taken.length;
  }

  #send(): void {
    while (this.#left > 0) {
      if (this.#socket.destroyed || !this.#present()) return;
      const piece = this.#segment!.memory.subarray(this.#offset, this.#offset + Math.min(PIECE_BYTES, this.#left));
      this.#offset += piece.length;
      this.#left -= piece.length;
      // The socket reads the memory itself, until it says that it has.
      const taken = this.#socket.write(piece, this.#left === 0 ? this.#release : undefined);
      if (!taken && this.#left > 0) {
        this.#socket.once('drain', () => this.#send());
        return;
      }
    }
    this.#sending = false;
    this.#finish();
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#socket.resume();
    for (const bytes of waiting) this.receive(bytes);
  }

  #finish(): void {
    this.#segment = undefined;
    this.#socket.setTimeout(0);
  }

  /** False, and the connection ends, where the memory was detached meanwhile. */
  #present(): boolean {
    const { memory, length } = this.#segment!;
    if (memory.length === length) return true;
    this.#socket.destroy();
    return false;
  }
}
