/** Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/), written line by line. */

/** By labels as they are written: `reason="evicted"`. */
export type Labelled = Readonly<Record<string, number>>;

export class MetricsText {
  readonly #lines: string[] = [];

  metric(name: string, type: 'gauge' | 'counter', help: string, value: number | Labelled): void {
    this.#head(name, type, help);
    if (typeof value === 'number') this.#lines.push(`${name} ${value}`);
    else for (const [labels, one] of Object.entries(value)) this.#lines.push(`${name}{${labels}} ${one}`);
  }

  /** One histogram a label: how many were at or below each bound, and the sum of all. */
  histograms(
    name: string,
    help: string,
    bounds: readonly number[],
    series: Iterable<{ labels: string; counts: ArrayLike<number>; sum: number }>,
  ): void {
    this.#head(name, 'histogram', help);
    for (const { labels, counts, sum } of series) {
      let total = 0;
      for (let at = 0; at <= bounds.length; at++) {
        total += counts[at];
        this.#lines.push(`${name}_bucket{${labels},le="${at < bounds.length ? bounds[at] : '+Inf'}"} ${total}`);
      }
      this.#lines.push(`${name}_sum{${labels}} ${sum}`, `${name}_count{${labels}} ${total}`);
    }
  }

  #head(name: string, type: string, help: string): void {
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

export function labelled(label: string, values: Readonly<Record<string, number>>): Labelled {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${label}="${name}"`, value]));
}
