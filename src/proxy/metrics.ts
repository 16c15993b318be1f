/** What the proxy counts, as Prometheus text (docs/metrics.md). */
import type { ProcessFigures } from '../metrics/process.js';
import { labelled, MetricsText } from '../metrics/text.js';
import type { Instance } from './instance.js';

const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300];

class Histogram {
  readonly counts = new Float64Array(SECONDS.length + 1);
  sum = 0;

  add(seconds: number): void {
    let at = 0;
    while (at < SECONDS.length && seconds > SECONDS[at]) at++;
    this.counts[at]++;
    this.sum += seconds;
  }
}

class Counter {
  readonly values: Record<string, number> = {};

  add(label: string, by = 1): void {
    this.values[label] = (this.values[label] ?? 0) + by;
  }
}

export class ProxyMetrics {
  /** Requests by how they ended: the HTTP status, `aborted` by the client, or `broken` after their first byte. */
  readonly requests = new Counter();
  /** Requests by how the decode engine gets the prompt's KV: `transfer`, `store`, or why by `none`. */
  readonly handovers = new Counter();
  readonly choices = new Counter();
  readonly tokens = new Counter();
  readonly retries = new Counter();
  readonly prefillSeconds = new Histogram();
  readonly firstByteSeconds = new Histogram();
  readonly requestSeconds = new Histogram();
  inFlight = 0;
  bytes = 0;
  overlapBlocks = 0;
  promptBlocks = 0;

  write(instances: readonly Instance[], index: number, process: ProcessFigures): string {
    const text = new MetricsText();
    const metric = text.metric.bind(text);
    const by = (label: string, { values }: Counter) => labelled(label, values);
    metric('mooncake_proxy_requests_total', 'counter', 'Completions by their outcome', by('outcome', this.requests));
    metric('mooncake_proxy_requests_in_flight', 'gauge', 'Completions under way', this.inFlight);
    metric('mooncake_proxy_response_bytes_total', 'counter', 'Bytes passed on to clients', this.bytes);
    const handovers = 'Completions by how the KV comes to the decode engine';
    metric('mooncake_proxy_handovers_total', 'counter', handovers, by('kind', this.handovers));
    metric('mooncake_proxy_retries_total', 'counter', 'Requests sent again, by phase', by('phase', this.retries));
    metric('mooncake_proxy_choices_total', 'counter', 'Prefill choices by what decided', by('by', this.choices));
    metric(
      'mooncake_proxy_prompt_tokens_total',
      'counter',
      'Prompts by where token ids are from',
      by('from', this.tokens),
    );
    metric('mooncake_proxy_prompt_blocks_total', 'counter', 'Blocks of prompts that were hashed', this.promptBlocks);
    metric(
      'mooncake_proxy_overlap_blocks_total',
      'counter',
      'Of them, credited to the chosen engine',
      this.overlapBlocks,
    );
    metric('mooncake_proxy_index_blocks', 'gauge', 'Blocks that the prefix index knows', index);
    const each = (value: (one: Instance) => number) =>
      instances.map((one) => [{ role: one.role, engine: one.name }, value(one)] as const);
    metric(
      'mooncake_proxy_instance_up',
      'gauge',
      '1: gets requests',
      each(({ state }) => (state === 'ready' ? 1 : 0)),
    );
    metric(
      'mooncake_proxy_instance_load_blocks',
      'gauge',
      'Prompt blocks it works on',
      each(({ load }) => load),
    );
    metric(
      'mooncake_proxy_instance_in_flight',
      'gauge',
      'Requests there',
      each(({ flights }) => flights.size),
    );
    metric(
      'mooncake_proxy_instance_requests_total',
      'counter',
      'Requests sent there',
      each(({ requests }) => requests),
    );
    metric(
      'mooncake_proxy_instance_failures_total',
      'counter',
      'Of them, failed',
      each(({ failures }) => failures),
    );
    const histogram = (name: string, help: string, { counts, sum }: Histogram) =>
      text.histograms(name, help, SECONDS, [{ labels: { path: 'completions' }, counts, sum }]);
    histogram('mooncake_proxy_prefill_seconds', 'Time at the prefill engine', this.prefillSeconds);
    histogram('mooncake_proxy_first_byte_seconds', 'Arrival to the first byte for the client', this.firstByteSeconds);
    histogram('mooncake_proxy_request_seconds', 'Arrival to the end', this.requestSeconds);
    process.write(text);
    return text.toString();
  }
}
