/** Prometheus' text format, read: series by name. What is no series of the format is passed over. */
export interface Series {
  labels: Readonly<Record<string, string>>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export class Exposition {
  readonly #series = new Map<string, Series[]>();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const match = LINE.exec(line);
      const value = Number(match?.[3]);
      if (!match || Number.isNaN(value)) continue;
      const labels: Record<string, string> = {};
      for (const [, name, escaped] of match[2]?.matchAll(LABEL) ?? []) labels[name] = plain(escaped);
      const all = this.#series.get(match[1]);
      if (all) all.push({ labels, value });
      else this.#series.set(match[1], [{ labels, value }]);
    }
  }

  get names(): Iterable<string> {
    return this.#series.keys();
  }

  all(name: string): readonly Series[] {
    return this.#series.get(name) ?? [];
  }

  /** Of the series without labels; undefined where it is not there. */
  value(name: string): number | undefined {
    return this.#series.get(name)?.[0]?.value;
  }
}

const plain = (text: string) => text.replace(/\\(.)/g, (_, mark) => (mark === 'n' ? '\n' : mark));
