/** A segment beside the cache, where objects are read whole before a part of them is used; made when first needed. */
import type { Transfer } from '../transfer/transfer.js';
import { Limiter } from './store-worker-context.js';

export class Aside {
  readonly #transfer: Transfer;
  readonly #wanted: number;
  readonly #turn = new Limiter(1);
  #segment: number | undefined;
  #length = 0;

  /** `wanted`: bytes to read at once; one object always fits. */
  constructor(transfer: Transfer, wanted: number) {
    this.#transfer = transfer;
    this.#wanted = wanted;
  }

  /** Bytes of the segment when objects of this size are read. */
  bytes(objectBytes: number): number {
    return Math.max(this.#wanted, objectBytes);
  }

  /** Runs `work` with the segment to itself. */
  use<T>(objectBytes: number, work: (segment: number) => Promise<T>): Promise<T> {
    return this.#turn.run(async () => {
      const length = this.bytes(objectBytes);
      if (this.#segment === undefined || this.#length < length) {
        await this.close();
        this.#segment = this.#transfer.register(new Uint8Array(length), { access: 'read' });
        this.#length = length;
      }
      return work(this.#segment);
    });
  }

  async close(): Promise<void> {
    const segment = this.#segment;
    this.#segment = undefined;
    if (segment !== undefined) await this.#transfer.unregister(segment);
  }
}
