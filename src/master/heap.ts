/** A binary heap of (key, value) pairs of numbers, smallest key first, in two arrays: no object for an entry. */
export class Heap {
  #keys = new Float64Array(64);
  #values = new Float64Array(64);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Bytes of the arrays. */
  get byteLength(): number {
    return this.#keys.byteLength + this.#values.byteLength;
  }

  /** Smallest key; undefined when empty. */
  get key(): number | undefined {
    return this.#size > 0 ? this.#keys[0] : undefined;
  }

  /** Value of the smallest key. The heap must not be empty. */
  get value(): number {
    return this.#values[0];
  }

  /** The keys of `values`, in the same order: a view like it. */
  get keys(): Float64Array {
    return this.#keys.subarray(0, this.#size);
  }

  /** All values, in no order: a view that the next change ends. */
  get values(): Float64Array {
    return this.#values.subarray(0, this.#size);
  }

  push(key: number, value: number): void {
    if (this.#size === this.#keys.length) this.#grow();
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#keys[parent] <= key) break;
      this.#keys[at] = this.#keys[parent];
      this.#values[at] = this.#values[parent];
      at = parent;
    }
    this.#keys[at] = key;
    this.#values[at] = value;
  }

  /** Takes the smallest away; its value. The heap must not be empty. */
  pop(): number {
    const keys = this.#keys;
    const values = this.#values;
    const first = values[0];
    const last = --this.#size;
    const key = keys[last];
    let at = 0;
    for (let child = 1; child < last; child = 2 * at + 1) {
      if (child + 1 < last && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= key) break;
      keys[at] = keys[child];
      values[at] = values[child];
      at = child;
    }
    keys[at] = key;
    values[at] = values[last];
    return first;
  }

  clear(): void {
    this.#size = 0;
  }

  #grow(): void {
    const keys = new Float64Array(2 * this.#size);
    const values = new Float64Array(2 * this.#size);
    keys.set(this.#keys);
    values.set(this.#values);
    this.#keys = keys;
    this.#values = values;
  }
}
