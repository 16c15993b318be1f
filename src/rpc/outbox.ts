/**
 * Answers on their way to a socket, written one after another into memory that is used again as soon as the kernel has taken
 * them: an answer costs no buffer of its own, and those of one turn leave in one write. All connections of a server share it:
 * what one wrote is flushed before another writes.
 */
import type { Socket } from 'node:net';
import { Writer } from './types.js';

const SLAB_BYTES = 128 * 1024;
/** Larger answers get memory of their own. */
const LARGE_BYTES = 32 * 1024;

export class Outbox {
  /** Bytes that wait for `flush`. */
  bytes = 0;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #writer = new Writer(this.#slab, 0, 0);
  /** Answers in the slab that are not among the pieces yet lie between these. */
  #begun = 0;
  #used = 0;
  #pieces: Uint8Array[] = [];

  /** Room for an answer of so many bytes, where the writer stands. */
  take(size: number): Writer {
    this.bytes += size;
    if (size > LARGE_BYTES) {
      this.#cut();
      const own = Buffer.allocUnsafe(size);
      this.#pieces.push(own);
      return new Writer(own, 0, 0);
    }
    if (this.#used + size > SLAB_BYTES) {
      this.#cut();
      this.#renew();
    }
    this.#writer.at = this.#used;
    this.#used += size;
    return this.#writer;
  }

  /** Takes back what was taken last. */
  drop(size: number): void {
    this.bytes -= size;
    if (size > LARGE_BYTES) this.#pieces.pop();
    else this.#used -= size;
  }

  /** Hands over to the socket what there is. */
  flush(socket: Socket): void {
    if (this.bytes === 0) return;
    this.#cut();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.bytes = this.#begun = this.#used = 0;
    if (socket.destroyed) return;
    // Behind what the kernel has not taken yet, a few bytes must not keep a whole slab.
    const isBehind = socket.writableLength > 0;
    if (pieces.length > 1) socket.cork();
    for (const piece of pieces) socket.write(isBehind ? Buffer.from(piece) : piece);
    if (pieces.length > 1) socket.uncork();
    if (!isBehind && socket.writableLength > 0) this.#renew();
  }

  #cut(): void {
    if (this.#used > this.#begun) this.#pieces.push(this.#slab.subarray(this.#begun, this.#used));
    this.#begun = this.#used;
  }

  /** The old one is left to those who still read it. */
  #renew(): void {
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#writer = new Writer(this.#slab, 0, 0);
    this.#begun = this.#used = 0;
  }
}
