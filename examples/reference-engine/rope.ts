/**
 * Rotary position embedding (Su et al. 2021), as Llama applies it: element i of a head turns with element i + half, by
 * an angle of position / 10000^(i / half).
 */

const BASE = 10_000;

export class Rope {
  readonly #half: number;
  readonly #cos: Float32Array;
  readonly #sin: Float32Array;

  constructor(headDim: number, positions: number) {
    this.#half = headDim / 2;
    this.#cos = new Float32Array(positions * this.#half);
    this.#sin = new Float32Array(positions * this.#half);
    for (let position = 0; position < positions; position++) {
      for (let i = 0; i < this.#half; i++) {
        const angle = position * BASE ** (-i / this.#half);
        this.#cos[position * this.#half + i] = Math.cos(angle);
        this.#sin[position * this.#half + i] = Math.sin(angle);
      }
    }
  }

  /** Turns the head at `x[at]` in place. */
  rotate(x: Float32Array, at: number, position: number): void {
    const half = this.#half;
    const angle = position * half;
    for (let i = 0; i < half; i++) {
      const cos = this.#cos[angle + i];
      const sin = this.#sin[angle + i];
      const a = x[at + i];
      const b = x[at + half + i];
      x[at + i] = a * cos - b * sin;
      x[at + half + i] = b * cos + a * sin;
    }
  }
}
