/**
 * A binary heap of (key, value) pairs of numbers, smallest key first, in arrays: no object for an entry. It grows by a chunk
 * at a time, so that no push ever copies what is there.
 */
const BITS = 14;
const CHUNK = 2 ** BITS;
const MASK = CHUNK - 1;
/** A heap that never has more stays in one small array. */
const LEAST = 64;

export class Heap {
  /** Of each chunk the keys, then the values. The first may be smaller than the others. */
  #chunks: Float64Array[] = [new Float64Array(2 * LEAST)];
  #room = LEAST;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Bytes of the arrays. */
  get byteLength(): number {
    return 16 * this.#room;
  }

  /** Smallest key; undefined when empty. */
  get key(): number | undefined {
    return this.#size > 0 ? this.#chunks[0][0] : undefined;
  }

  /** Value of the smallest key. The heap must not be empty. */
  get value(): number {
    return this.#chunks[0][this.#chunks[0].length >> 1];
  }

  /** All entries, in no order: copies of keys and values. */
  entries(): { keys: Float64Array; values: Float64Array } {
    const keys = new Float64Array(this.#size);
    const values = new Float64Array(this.#size);
    for (const [i, chunk] of this.#chunks.entries()) {
      const [from, half] = [i * CHUNK, chunk.length >> 1];
      const count = Math.min(half, this.#size - from);
      if (count <= 0) break;
      keys.set(chunk.subarray(0, count), from);
      values.set(chunk.subarray(half, half + count), from);
    }
    return { keys, values };
  }

  push(key: number, value: number): void {
    if (this.#size === this.#room) this.#grow();
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#keyAt(parent) <= key) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#set(at, key, value);
  }

  /** Takes the smallest away; its value. The heap must not be empty. */
  pop(): number {
    const first = this.value;
    const last = --this.#size;
    const key = this.#keyAt(last);
    let at = 0;
    for (let child = 1; child < last; child = 2 * at + 1) {
      if (child + 1 < last && this.#keyAt(child + 1) < this.#keyAt(child)) child++;
      if (this.#keyAt(child) >= key) break;
      this.#move(child, at);
      at = child;
    }
    this.#move(last, at);
    this.#shrink();
    return first;
  }

  /** Takes an entry away that is as good as any to begin with, at no cost; its value. The heap must not be empty. */
  takeLast(): number {
    const last = --this.#size;
    const chunk = this.#chunks[last >> BITS];
    const value = chunk[(chunk.length >> 1) + (last & MASK)];
    this.#shrink();
    return value;
  }

  #keyAt(at: number): number {
    return this.#chunks[at >> BITS][at & MASK];
  }

  #set(at: number, key: number, value: number): void {
    const chunk = this.#chunks[at >> BITS];
    chunk[at & MASK] = key;
    chunk[(chunk.length >> 1) + (at & MASK)] = value;
  }

  #move(from: number, to: number): void {
    const chunk = this.#chunks[from >> BITS];
    this.#set(to, chunk[from & MASK], chunk[(chunk.length >> 1) + (from & MASK)]);
  }

  #grow(): void {
    if (this.#room >= CHUNK) {
      this.#chunks.push(new Float64Array(2 * CHUNK));
      this.#room += CHUNK;
      return;
    }
    const { keys, values } = this.entries();
    this.#room *= 2;
    const larger = new Float64Array(2 * this.#room);
    larger.set(keys);
    larger.set(values, this.#room);
    this.#chunks[0] = larger;
  }

  /** Gives back chunks that are not needed, but for one: what is pushed and popped at an end must not make one each time. */
  #shrink(): void {
    if (this.#room > CHUNK && this.#size <= this.#room - 2 * CHUNK) {
      this.#chunks.pop();
      this.#room -= CHUNK;
    }
  }
}
