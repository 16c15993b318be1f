/** The process as its event loop sees it: how long calls wait for their turn, and what collecting garbage costs. */
import { monitorEventLoopDelay, PerformanceObserver, performance } from 'node:perf_hooks';
import { labelled, type MetricsText } from './text.js';

/** Delays are measured by a timer of this period, which is taken off again. */
const RESOLUTION_MS = 10;
/** Quantiles are those of the window of this length that was the last to end. */
const WINDOW_MS = 10_000;

const QUANTILES = { '0.5': 50, '0.99': 99, '1': 100 };
type Quantiles = Record<keyof typeof QUANTILES, number>;

export class ProcessFigures {
  readonly #delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #collections: PerformanceObserver;
  readonly #timer: NodeJS.Timeout;
  #last: Quantiles = { '0.5': 0, '0.99': 0, '1': 0 };
  #longest = 0;
  #collectionSeconds = 0;
  #collected = 0;

  constructor() {
    this.#delay.enable();
    this.#timer = setInterval(() => this.#turn(), WINDOW_MS).unref();
    this.#collections = new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) {
        this.#collected++;
        this.#collectionSeconds += duration / 1000;
      }
    });
    this.#collections.observe({ entryTypes: ['gc'] });
  }

  #turn(): void {
    const above = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS) / 1000;
    const at = (percent: number) => above(percent === 100 ? this.#delay.max : this.#delay.percentile(percent));
    for (const [key, percent] of Object.entries(QUANTILES)) this.#last[key as keyof Quantiles] = at(percent);
    this.#longest = Math.max(this.#longest, at(100));
    this.#delay.reset();
  }

  write(text: MetricsText): void {
    const { active, utilization } = performance.eventLoopUtilization();
    const { user, system } = process.cpuUsage();
    const memory = process.memoryUsage();
    const help = `Time that what is due waits, over the last ${WINDOW_MS / 1000} s that have ended`;
    text.metric('mooncake_event_loop_delay_seconds', 'gauge', help, labelled('quantile', this.#last));
    text.metric('mooncake_event_loop_delay_longest_seconds', 'gauge', 'The longest of all windows', this.#longest);
    text.metric('mooncake_event_loop_busy_seconds_total', 'counter', 'Time not spent waiting', active / 1000);
    text.metric('mooncake_event_loop_utilization', 'gauge', 'Its share of all time', utilization);
    text.metric('mooncake_gc_seconds_total', 'counter', 'Time spent collecting garbage', this.#collectionSeconds);
    text.metric('mooncake_gc_total', 'counter', 'Collections of garbage', this.#collected);
    text.metric('process_cpu_seconds_total', 'counter', 'Processor time', (user + system) / 1e6);
    text.metric('process_resident_memory_bytes', 'gauge', 'Resident memory', memory.rss);
    text.metric('process_start_time_seconds', 'gauge', 'Start, since 1970', performance.timeOrigin / 1000);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#delay.disable();
    this.#collections.disconnect();
  }
}
