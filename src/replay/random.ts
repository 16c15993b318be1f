/** Seeded random numbers for generated workloads: the same seed gives the same workload on every machine. */
export interface Random {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Exponential with the given mean. */
  exponential(mean: number): number;
  /** Log-normal with the given median; sigma is the standard deviation of its logarithm. */
  logNormal(median: number, sigma: number): number;
}

/** mulberry32: 32 bits of state, good enough for arrival times and lengths. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    uniform,
    exponential: (mean) => -mean * Math.log(1 - uniform()),
    logNormal: (median, sigma) => {
      const normal = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
      return median * Math.exp(sigma * normal);
    },
  };
}
