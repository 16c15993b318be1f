/**
 * What work costs and what a worker costs, learnt from every call: nanoseconds per unit for each kind of work (a unit is a
 * block, a key or a descriptor) and the round trip to a worker beside the work itself. A call is worth a worker when it
 * would hold this thread for longer than the round trip takes: then its latency at most doubles and the event loop is free.
 */

/** Weight of a new sample. */
const GAIN = 0.1;
/** A sample above this multiple of the estimate counts as that multiple: a descheduled thread says nothing of the work. */
const OUTLIER = 4;
/** Of the first samples the least counts: the others hold the loading of code. */
const WARM_UP = 8;
/** Round trip assumed before one is measured, ns. */
const FIRST_ROUND_TRIP = 50_000;
/** Until a kind of work is warm, up to this many units run inline: its estimate still holds the loading of code. */
const FIRST_UNITS = 64;

class Average {
  value?: number;
  #samples = 0;

  constructor(value?: number) {
    this.value = value;
  }

  get warm(): boolean {
    return this.#samples >= WARM_UP;
  }

  add(sample: number): void {
    const { value } = this;
    if (value === undefined || this.#samples === 0) this.value = sample;
    else if (this.#samples < WARM_UP) this.value = Math.min(value, sample);
    else this.value = value + GAIN * (Math.min(sample, OUTLIER * value) - value);
    this.#samples++;
  }
}

export class CostModel {
  readonly #perUnit = new Map<string, Average>();
  readonly #roundTrip = new Average(FIRST_ROUND_TRIP);

  /** Nanoseconds that `units` of this kind will take, or undefined for a kind never seen. */
  estimate(kind: string, units: number): number | undefined {
    const perUnit = this.#perUnit.get(kind)?.value;
    return perUnit === undefined ? undefined : perUnit * units;
  }

  worthWorker(kind: string, units: number): boolean {
    const average = this.#perUnit.get(kind);
    if (!average?.warm && units <= FIRST_UNITS) return false;
    return average === undefined || (average.value as number) * units > (this.#roundTrip.value as number);
  }

  observe(kind: string, units: number, ns: number): void {
    if (units === 0) return;
    let average = this.#perUnit.get(kind);
    if (!average) this.#perUnit.set(kind, (average = new Average()));
    average.add(ns / units);
  }

  /** A round trip less the time that its work took in the worker. */
  observeRoundTrip(ns: number): void {
    this.#roundTrip.add(ns);
  }

  get roundTripNs(): number {
    return this.#roundTrip.value as number;
  }

  get nsPerUnit(): Record<string, number> {
    return Object.fromEntries([...this.#perUnit].map(([kind, { value }]) => [kind, value as number]));
  }
}
