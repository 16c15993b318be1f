/** Quantiles of the last samples of a series. */
export class Quantiles {
  readonly #samples: Float64Array;
  #count = 0;

  constructor(size = 1024) {
    this.#samples = new Float64Array(size);
  }

  add(sample: number): void {
    this.#samples[this.#count++ % this.#samples.length] = sample;
  }

  /** The nearest-rank quantile, 0 before the first sample. */
  at(q: number): number {
    const sorted = this.#samples.slice(0, Math.min(this.#count, this.#samples.length)).sort();
    return sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  }
}
