/**
 * Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/), written line by line. Values of
 * labels may be any text: they are escaped here and nowhere else.
 */

/** Of one series: its labels, by name. */
export type Labels = Readonly<Record<string, string>>;

/** The series of a metric. */
export type Labelled = readonly (readonly [labels: Labels, value: number])[];

export interface HistogramSeries {
  readonly labels: Labels;
  /** How many were at or below each bound but above the one before, and last those above all. */
  readonly counts: ArrayLike<number>;
  readonly sum: number;
}

export class MetricsText {
  readonly #lines: string[] = [];

  metric(name: string, type: 'gauge' | 'counter', help: string, value: number | Labelled): void {
    this.#head(name, type, help);
    if (typeof value === 'number') this.#lines.push(`${name} ${value}`);
    else for (const [labels, one] of value) this.#lines.push(`${name}{${written(labels)}} ${one}`);
  }

  /** One histogram a series: how many were at or below each bound, and the sum of all. */
  histograms(name: string, help: string, bounds: readonly number[], series: Iterable<HistogramSeries>): void {
    this.#head(name, 'histogram', help);
    for (const { labels, counts, sum } of series) {
      const common = written(labels);
      let total = 0;
      for (let at = 0; at <= bounds.length; at++) {
        total += counts[at];
        this.#lines.push(`${name}_bucket{${common},le="${at < bounds.length ? bounds[at] : '+Inf'}"} ${total}`);
      }
      this.#lines.push(`${name}_sum{${common}} ${sum}`, `${name}_count{${common}} ${total}`);
    }
  }

  #head(name: string, type: string, help: string): void {
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

/** A series for each value, told apart by one label. */
export function labelled(label: string, values: Readonly<Record<string, number>>): Labelled {
  return Object.entries(values).map(([name, value]) => [{ [label]: name }, value]);
}

function written(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`)
    .join(',');
}
