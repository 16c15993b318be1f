/**
 * How often things were seen lately: a count-min sketch (Cormode and Muthukrishnan, 2005) of small counters that are halved as
 * it fills (TinyLFU, Einziger et al., 2017). It never says less than what was counted since the last halving, and seldom
 * more.
 */
const ROWS = 4;
const MOST = 255;
/** Odd multipliers, one a row. */
const MIX = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f];

export class Sketch {
  readonly #width: number;
  readonly #counts: Uint8Array;
  /** Sightings between two halvings: ten a counter of a row, as in TinyLFU. */
  readonly #period: number;
  #seen = 0;

  /** `width`: counters a row, a power of two. */
  constructor(width: number) {
    this.#width = width;
    this.#counts = new Uint8Array(ROWS * width);
    this.#period = 10 * width;
  }

  get byteLength(): number {
    return this.#counts.byteLength;
  }

  /** Counts a sighting of a positive integer below 2^53; how many there were, at most 255. */
  add(value: number): number {
    if (++this.#seen >= this.#period) this.#halve();
    const low = value >>> 0;
    const high = (value / 2 ** 32) >>> 0;
    let least = MOST;
    for (let row = 0; row < ROWS; row++) {
      let hash = Math.imul(low ^ Math.imul(high + row, 0x01000193), MIX[row]);
      hash = Math.imul(hash ^ (hash >>> 15), MIX[(row + 1) % ROWS]);
      const at = row * this.#width + ((hash ^ (hash >>> 13)) & (this.#width - 1));
      const count = Math.min(MOST, this.#counts[at] + 1);
      this.#counts[at] = count;
      least = Math.min(least, count);
    }
    return least;
  }

  #halve(): void {
    this.#seen = 0;
    for (let at = 0; at < this.#counts.length; at++) this.#counts[at] >>>= 1;
  }
}
