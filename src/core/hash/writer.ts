/** A byte buffer that grows. */
const encoder = new TextEncoder();

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

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

  u8(value: number): this {
    this.#room(1);
    this.#bytes[this.length++] = value;
    return this;
  }

  /** The low `size` bytes of an integer, in two's complement, little-endian. */
  little(value: number | bigint, size: number): this {
    this.#room(size);
    let rest = BigInt(value);
    for (let i = 0; i < size; i++, rest >>= 8n) this.#bytes[this.length++] = Number(rest & 0xffn);
    return this;
  }

  /** The same, big-endian. */
  big(value: number | bigint, size: number): this {
    this.little(value, size);
    this.#bytes.subarray(this.length - size, this.length).reverse();
    return this;
  }

  append(bytes: Uint8Array): this {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
    return this;
  }

  /** What was written, a view. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}
