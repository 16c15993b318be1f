/** Descriptors that are gathered record by record. */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../core/descriptors.js';

export class DescriptorList {
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

  get isEmpty(): boolean {
    return this.#count === 0;
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
