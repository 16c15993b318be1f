/** How every benchmark measures and prints: medians of repeated runs, one JSON line per result with --json. */

export interface Result {
  name: string;
  /** What was measured, in `unit`. */
  value: number;
  unit: string;
  /** The peer's figure of the same run, in the same unit. */
  baseline?: number;
  /** How many times better than the baseline this is: above 1 is better, whatever the unit. */
  ratio?: number;
  /** Name of the peer. */
  peer?: string;
  /** The ratio that is asked for. */
  wanted?: number;
}

const json = process.argv.includes('--json');
const digits = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** Prints one result. `better` says which direction of the unit is good. */
export function report(result: Omit<Result, 'ratio'>, better: 'higher' | 'lower'): void {
  const { name, value, unit, baseline, peer, wanted } = result;
  const ratio = baseline === undefined ? undefined : better === 'higher' ? value / baseline : baseline / value;
  if (json) {
    console.log(
      JSON.stringify({
        name,
        value,
        unit,
        baseline: baseline ?? null,
        ratio: ratio ?? null,
        peer: peer ?? null,
        wanted,
      }),
    );
    return;
  }
  const against =
    baseline === undefined
      ? ''
      : `  ${peer ?? 'peer'} ${digits(baseline)}  ratio ${ratio?.toFixed(2)}${wanted === undefined ? '' : ` (${Number(wanted.toFixed(2))})`}`;
  console.log(`${name.padEnd(52)} ${digits(value).padStart(10)} ${unit.padEnd(14)}${against}`);
}

/** Says what could not be measured and why; a benchmark never leaves a row out in silence. */
export function missing(name: string, why: string): void {
  if (json) console.log(JSON.stringify({ name, value: null, unit: null, baseline: null, ratio: null, skipped: why }));
  else console.log(`${name.padEnd(52)} not measured: ${why}`);
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** Median nanoseconds of one call of `work`, over `runs` calls after two that are not counted. */
export function nanoseconds(work: () => void, runs = 15): number {
  const times: number[] = [];
  for (let run = -2; run < runs; run++) {
    const start = process.hrtime.bigint();
    work();
    if (run >= 0) times.push(Number(process.hrtime.bigint() - start));
  }
  return median(times);
}
