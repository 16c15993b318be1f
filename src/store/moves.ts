/** Descriptors for peers, gathered piece by piece: one batch for each peer that a call reaches. */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../core/descriptors.js';
import type { Peer } from '../transfer/transfer.js';

class DescriptorList {
  #bytes = allocateDescriptors(16);
  #view = new DataView(this.#bytes.buffer);
  #count = 0;

  push(source: number, sourceOffset: number, destination: number, destinationOffset: number, length: number): void {
    const at = DESCRIPTOR_BYTES * (this.#count + 1);
    if (at === this.#bytes.byteLength) {
      const more = allocateDescriptors(2 * this.#count);
      more.set(this.#bytes.subarray(DESCRIPTOR_BYTES), DESCRIPTOR_BYTES);
      this.#bytes = more;
      this.#view = new DataView(more.buffer);
    }
    const view = this.#view;
    view.setUint32(at, source, true);
    view.setUint32(at + 4, destination, true);
    this.#u64(at + 8, sourceOffset);
    this.#u64(at + 16, destinationOffset);
    this.#u64(at + 24, length);
    this.#count++;
  }

  descriptors(): Descriptors {
    this.#view.setBigUint64(8, BigInt(this.#count), true);
    return new Descriptors(this.#bytes.subarray(0, DESCRIPTOR_BYTES * (this.#count + 1)));
  }

  #u64(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
    this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  }
}

/** Batches by peer. */
export class Moves {
  readonly #lists = new Map<Peer, DescriptorList>();

  get empty(): boolean {
    return this.#lists.size === 0;
  }

  of(peer: Peer): DescriptorList {
    let list = this.#lists.get(peer);
    if (list === undefined) this.#lists.set(peer, (list = new DescriptorList()));
    return list;
  }

  /**
   * Runs `move` for every batch; what went wrong, by peer. Waits for all, also when one fails, so that none writes on
   * afterwards.
   */
  async run(move: (peer: Peer, descriptors: Descriptors) => Promise<unknown>): Promise<Map<Peer, unknown>> {
    const failures = new Map<Peer, unknown>();
    const one = async (peer: Peer, list: DescriptorList) => {
      try {
        await move(peer, list.descriptors());
      } catch (error) {
        failures.set(peer, error);
      }
    };
    await Promise.all([...this.#lists].map(([peer, list]) => one(peer, list)));
    return failures;
  }
}
