/** A byte buffer that grows. */
const utf8 = new TextEncoder();

export class Writer {
  #bytes = new Uint8Array(256);
  length = 0;

  #room(size: number): void {
    const need = this.length + size;
    if (need <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(need, 2 * this.#bytes.length));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
  }

  /** One or more bytes. */
  u8(...values: number[]): void {
    this.#room(values.length);
    for (const value of values) this.#bytes[this.length++] = value;
  }

  /** An unsigned integer of `size` bytes, little-endian. */
  little(value: number | bigint, size: number): void {
    this.#room(size);
    for (let rest = BigInt(value), i = 0; i < size; i++, rest >>= 8n) this.#bytes[this.length++] = Number(rest & 0xffn);
  }

  /** An unsigned integer of `size` bytes, big-endian. */
  big(value: number | bigint, size: number): void {
    this.little(value, size);
    this.#bytes.subarray(this.length - size, this.length).reverse();
  }

  append(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** What was written, a view. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  static utf8(text: string): Uint8Array {
    return utf8.encode(text);
  }
}
