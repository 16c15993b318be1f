/** What the demo found, as figures and as a table for people. */
import type { DemoResult } from './demo.js';

export interface DemoFigures {
  requests: number;
  promptTokens: number;
  outputTokens: number;
  /** Prompt tokens that prefill instances found in their own cache, in the store, and had to compute. */
  localTokens: number;
  storeTokens: number;
  computedTokens: number;
  /** Shares of the prompt tokens. */
  localHitRate: number;
  storeHitRate: number;
  /** Prompt tokens that decode instances got from prefill instances, and from the store or their own cache. */
  handedTokens: number;
  decodeOtherTokens: number;
  /** Blocks and bytes between instances, and into and out of the store, over all ranks. */
  handedBlocks: number;
  handedBytes: number;
  /** Of the bytes between instances, those that were there before the prefill had ended. */
  earlyBytes: number;
  savedBlocks: number;
  savedBytes: number;
  loadedBlocks: number;
  loadedBytes: number;
  /** Milliseconds to the first token: median and 95th percentile. */
  ttftMs: { p50: number; p95: number };
  ttftWithoutMs: { p50: number; p95: number };
  seconds: number;
  secondsWithout: number;
  retries: number;
  verified: number;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

const quantiles = (values: readonly number[]) => ({ p50: quantile(values, 0.5), p95: quantile(values, 0.95) });

export function demoFigures({ requests, stats, ...result }: DemoResult): DemoFigures {
  const sum = (value: (request: DemoResult['requests'][number]) => number) =>
    requests.reduce((total, request) => total + value(request), 0);
  const promptTokens = sum((request) => request.promptTokens);
  const localTokens = sum(({ prefillCached }) => prefillCached.local);
  const storeTokens = sum(({ prefillCached }) => prefillCached.store);
  return {
    requests: requests.length,
    promptTokens,
    outputTokens: sum(({ tokens }) => tokens.length),
    localTokens,
    storeTokens,
    computedTokens: promptTokens - localTokens - storeTokens,
    localHitRate: localTokens / promptTokens,
    storeHitRate: storeTokens / promptTokens,
    handedTokens: sum(({ decodeCached }) => decodeCached.prefill),
    decodeOtherTokens: sum(({ decodeCached }) => decodeCached.local + decodeCached.store),
    handedBlocks: stats['MooncakeConnector.blocksLoaded'] ?? 0,
    handedBytes: stats['MooncakeConnector.bytesLoaded'] ?? 0,
    earlyBytes: stats['MooncakeConnector.bytesLoadedEarly'] ?? 0,
    savedBlocks: stats['MooncakeStoreConnector.savedBlocks'] ?? 0,
    savedBytes: stats['MooncakeStoreConnector.savedBytes'] ?? 0,
    loadedBlocks: stats['MooncakeStoreConnector.loadedBlocks'] ?? 0,
    loadedBytes: stats['MooncakeStoreConnector.loadedBytes'] ?? 0,
    ttftMs: quantiles(requests.map(({ ttftMs }) => ttftMs)),
    ttftWithoutMs: quantiles(result.baselineTtftMs),
    seconds: result.seconds,
    secondsWithout: result.baselineSeconds,
    retries: sum(({ retries }) => retries),
    verified: result.verified,
  };
}

const count = (value: number) => value.toLocaleString('en-US');
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = ({ p50, p95 }: { p50: number; p95: number }) =>
  `median ${p50.toFixed(0)} ms, p95 ${p95.toFixed(0)} ms`;

export function demoTable(figures: DemoFigures): string {
  const rows: [string, string][] = [
    ['requests', count(figures.requests)],
    ['tokens', `${count(figures.promptTokens)} in prompts, ${count(figures.outputTokens)} generated`],
    ['prefill: own cache', `${percent(figures.localHitRate)}  ${count(figures.localTokens)} tokens`],
    ['prefill: store', `${percent(figures.storeHitRate)}  ${count(figures.storeTokens)} tokens`],
    [
      'prefill: computed',
      `${percent(figures.computedTokens / figures.promptTokens)}  ${count(figures.computedTokens)} tokens`,
    ],
    ['prefill tokens saved', `${count(figures.localTokens + figures.storeTokens)} of ${count(figures.promptTokens)}`],
    ['prefill to decode', `${count(figures.handedBlocks)} blocks, ${megabytes(figures.handedBytes)}`],
    ['saved to the store', `${count(figures.savedBlocks)} blocks, ${megabytes(figures.savedBytes)}`],
    ['loaded from the store', `${count(figures.loadedBlocks)} blocks, ${megabytes(figures.loadedBytes)}`],
    ['time to first token', milliseconds(figures.ttftMs)],
    ['  without cache', `${milliseconds(figures.ttftWithoutMs)} (one engine, nothing else to do)`],
  ];
  if (figures.earlyBytes > 0) {
    const share = percent(figures.earlyBytes / figures.handedBytes);
    const handed = rows.findIndex(([name]) => name === 'prefill to decode');
    rows.splice(handed + 1, 0, ['  while it computed', `${share}  ${megabytes(figures.earlyBytes)}`]);
  }
  if (figures.retries > 0) rows.push(['failed and repeated', count(figures.retries)]);
  return rows.map(([name, value]) => `${name.padEnd(24)}${value}`).join('\n');
}
