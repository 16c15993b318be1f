/** Which capacities a replay tries when none are named: from a small share of the distinct blocks to no limit. */

/** For traces of the size of Mooncake's conversation trace; 5,860 blocks of 512 tokens are 3 million tokens. */
const LARGE = [1000, 2500, 5860, 10_000, 25_000, 50_000, Infinity];
const LARGE_FROM = 100_000;
const SHARES = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2];

/** Ascending, the last one Infinity. `unique` is the number of distinct blocks. */
export function defaultCapacities(unique: number): number[] {
  if (unique >= LARGE_FROM) return LARGE;
  const shares = SHARES.map((share) => twoDigits(unique * share)).filter((blocks) => blocks >= 1);
  return [...new Set([...shares, Infinity])];
}

/** Rounded to two significant digits. */
function twoDigits(value: number): number {
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(value)) - 1);
  return Math.round(value / unit) * unit;
}
