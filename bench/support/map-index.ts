/** What one would write first: a Map from a block's hash to a bit set of its holders, one look-up a block. */
export class MapIndex {
  readonly #holders = new Map<bigint, bigint>();
  readonly #instances: number;
  #heap = process.memoryUsage().heapUsed;

  constructor(instances: number) {
    globalThis.gc?.();
    this.#heap = process.memoryUsage().heapUsed;
    this.#instances = instances;
  }

  insert(instance: number, hashes: BigUint64Array): void {
    const bit = 1n << BigInt(instance);
    for (const hash of hashes) this.#holders.set(hash, (this.#holders.get(hash) ?? 0n) | bit);
  }

  find(hashes: BigUint64Array, lengths: Uint32Array): void {
    lengths.fill(0);
    let all = (1n << BigInt(this.#instances)) - 1n;
    for (let depth = 0; depth < hashes.length; depth++) {
      const now = all & (this.#holders.get(hashes[depth]) ?? 0n);
      if (now !== all) {
        for (let i = 0; i < this.#instances; i++)
          if ((all >> BigInt(i)) & 1n && !((now >> BigInt(i)) & 1n)) lengths[i] = depth;
        all = now;
        if (all === 0n) return;
      }
    }
    for (let i = 0; i < this.#instances; i++) if ((all >> BigInt(i)) & 1n) lengths[i] = hashes.length;
  }

  /** Growth of the heap since the index was made. */
  bytes(): number {
    globalThis.gc?.();
    return process.memoryUsage().heapUsed - this.#heap;
  }
}
