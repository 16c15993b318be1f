/** Starts pd-child.ts, and waits for what it reports. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { AddCommand, ChildOptions, Report } from './pd-child.js';

type Key<T> = T extends unknown ? keyof T : never;
type Of<K extends string> = Extract<Report, Record<K, unknown>> extends Record<K, infer V> ? V : never;

export class Child {
  readonly #process: ChildProcess;
  readonly #reports: Report[] = [];
  #wake: () => void = () => {};

  private constructor(process: ChildProcess) {
    this.#process = process;
    process.on('message', (report: Report) => {
      this.#reports.push(report);
      this.#wake();
    });
  }

  static async start(options: ChildOptions): Promise<{ child: Child; engineId: string; address: string }> {
    const child = new Child(fork(fileURLToPath(new URL('./pd-child.js', import.meta.url))));
    child.#process.send(options);
    return { child, ...(await child.next('ready')) };
  }

  add(request: AddCommand['add']): void {
    this.#process.send({ add: request });
  }

  /** The next report of a kind; those before it are dropped. */
  async next<K extends Key<Report>>(kind: K, limitMs = 20_000): Promise<Of<K>> {
    const end = Date.now() + limitMs;
    for (;;) {
      const index = this.#reports.findIndex((report) => kind in report);
      if (index >= 0) return (this.#reports.splice(0, index + 1).at(-1) as unknown as Record<string, Of<K>>)[kind];
      if (Date.now() > end) throw new Error(`the child reports no ${kind}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 100);
      });
    }
  }

  has(kind: Key<Report>): boolean {
    return this.#reports.some((report) => kind in report);
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  async kill(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGKILL');
    if (this.#process.exitCode === null && this.#process.signalCode === null) await gone;
  }
}
