/** Records on their way into the open bucket: gathered, and written in one piece through a slot of staging memory. */
import type { Bucket } from './bucket.js';
import { recordHead, recordLength } from './record.js';
import { SLOT, type Slots } from './slots.js';
import type { DiskEntry } from './tier.js';

export class BucketWriter {
  readonly #staging: Slots;
  #bucket?: Bucket;
  /** Bytes of the bucket that are gathered, and where they begin in it. */
  #pieces: Uint8Array[] = [];
  #from = 0;
  #size = 0;

  /** Bytes that are gathered. */
  get size(): number {
    return this.#size;
  }

  constructor(staging: Slots) {
    this.#staging = staging;
  }

  /**
   * Gathers a record for the end of a bucket, which has room for it; it is in the file when `flush` has resolved. `value` must
   * not change until then.
   */
  append(bucket: Bucket, key: Uint8Array, value: Uint8Array, checksum: bigint): DiskEntry {
    if (this.#bucket !== bucket) {
      this.#bucket = bucket;
      this.#from = bucket.tail;
    }
    const head = recordHead(bucket.id, key, value.length, checksum);
    const length = recordLength(key.length, value.length);
    const recordAt = bucket.tail;
    this.#pieces.push(head, value, new Uint8Array(length - head.length - value.length));
    this.#size += length;
    bucket.tail += length;
    return { bucket, recordAt, valueAt: recordAt + head.length, size: value.length, checksum };
  }

  /** Writes what is gathered. After an error nothing of it counts. */
  async flush(): Promise<void> {
    const [bucket, pieces] = [this.#bucket, this.#pieces];
    let at = this.#from;
    this.#pieces = [];
    this.#from += this.#size;
    this.#size = 0;
    if (!bucket || pieces.length === 0) return;
    await this.#staging.use(async (slot) => {
      let filled = 0;
      const write = async () => {
        await this.#staging.write(slot, filled, bucket.file, at);
        at += filled;
        filled = 0;
      };
      for (const piece of pieces) {
        for (let taken = 0; taken < piece.length; ) {
          const part = piece.subarray(taken, taken + SLOT - filled);
          slot.bytes.set(part, filled);
          filled += part.length;
          taken += part.length;
          if (filled === SLOT) await write();
        }
      }
      if (filled > 0) await write();
    });
  }
}
