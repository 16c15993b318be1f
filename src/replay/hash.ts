/**
 * Trace ids become block hashes by splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
 * 2014): a bijection, so ids that differ have hashes that differ. In halves of 32 bits, for BigInt would take longer
 * than the replay.
 */

/** Writes splitmix64 of the integer `id` (0 to 2^53 - 1) as element `at` of `words`, two little-endian halves each. */
export function writeHash(words: Uint32Array, at: number, id: number): void {
  const sum = (id >>> 0) + 0x7f4a7c15;
  let low = sum >>> 0;
  let high = (Math.floor(id / 2 ** 32) + 0x9e3779b9 + (sum > 0xffffffff ? 1 : 0)) >>> 0;

  const xorShift = (bits: number) => {
    const shifted = ((low >>> bits) | (high << (32 - bits))) >>> 0;
    high = (high ^ (high >>> bits)) >>> 0;
    low = (low ^ shifted) >>> 0;
  };
  const multiply = (factorHigh: number, factorLow: number) => {
    const a = low & 0xffff;
    const b = low >>> 16;
    const c = factorLow & 0xffff;
    const d = factorLow >>> 16;
    const middle = ((a * c) >>> 16) + ((a * d) & 0xffff) + ((b * c) & 0xffff);
    const carry = Math.floor((a * d) / 65536) + Math.floor((b * c) / 65536) + Math.floor(middle / 65536) + b * d;
    high = (carry + Math.imul(high, factorLow) + Math.imul(low, factorHigh)) >>> 0;
    low = Math.imul(low, factorLow) >>> 0;
  };

  xorShift(30);
  multiply(0xbf58476d, 0x1ce4e5b9);
  xorShift(27);
  multiply(0x94d049bb, 0x133111eb);
  xorShift(31);
  words[2 * at] = low;
  words[2 * at + 1] = high;
}
