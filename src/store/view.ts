/**
 * An object where it lies, without a copy. A view does not pin: what a reader forgot to release would never be evicted.
 * The lease protects it, and the end of the lease ends the view.
 */
import type { SegmentMemory } from './memory.js';

export class ObjectView {
  /** The object's bytes; they must not be written, and not be believed once the lease has ended. */
  readonly bytes: Uint8Array;
  /** They were compared with the object's checksum when the view was made. */
  readonly verified: boolean;
  /** False where the object lies in another process: `bytes` is a copy then and needs no lease. */
  readonly zeroCopy: boolean;
  readonly #lease: () => number;
  readonly #memory: SegmentMemory | undefined;
  #released = false;

  /** `memory`, and `lease` which says what is left of it: of an object that was not copied. */
  constructor(bytes: Uint8Array, verified: boolean, memory?: SegmentMemory, lease = () => Number.POSITIVE_INFINITY) {
    this.bytes = bytes;
    this.verified = verified;
    this.zeroCopy = memory !== undefined;
    this.#memory = memory;
    this.#lease = lease;
  }

  /** Milliseconds for which the bytes are still protected; 0 when it has ended, the segment was taken away, or the view was released. */
  get leaseMs(): number {
    return this.#released || this.#memory?.retired ? 0 : Math.max(0, this.#lease());
  }

  /**
   * Ends the use of the view. True: the lease still ran, so whatever was read from `bytes` was the object. False: the read
   * took too long and its result must be dropped, as that of a late read.
   */
  release(): boolean {
    const held = this.leaseMs > 0;
    this.#released = true;
    return held;
  }
}
