/**
 * The demo: a conversation workload through the cluster, then every prompt once more through a single engine that caches
 * nothing. The answers must be the same, token for token: that the KV which came from a cache, a store or another instance
 * is the KV that would have been computed is the one thing that a KV cache has to prove.
 */
import type { ConnectorStats } from '../connector/api.js';
import { errors } from '../core/errors.js';
import type { Cluster, Completion } from './cluster.js';
import { type Session, sessions, type WorkloadOptions } from './workload.js';

export interface DemoOptions extends WorkloadOptions {
  /** Tokens of an answer. */
  output: number;
  /** Sessions that talk at the same time. */
  concurrency: number;
  signal: AbortSignal;
  encode(text: string): Uint32Array;
  /** The run without cache: the same model, nothing kept. */
  recompute(tokens: Uint32Array, maxTokens: number, signal: AbortSignal): Promise<{ tokens: number[]; ttftMs: number }>;
  onProgress?(progress: DemoProgress): void;
}

export interface DemoProgress {
  phase: 'serving' | 'verifying';
  done: number;
  total: number;
  promptTokens: number;
  savedTokens: number;
}

export interface DemoRequest extends Completion {
  session: number;
  turn: number;
  prompt: Uint32Array;
}

export interface DemoResult {
  requests: DemoRequest[];
  /** Seconds of the workload, and of the run without cache. */
  seconds: number;
  baselineSeconds: number;
  baselineTtftMs: number[];
  /** Completions equal to the run without cache. */
  verified: number;
  /** The first that was not, for the message. */
  firstDifference: { session: number; turn: number; expected: number[]; actual: number[] } | null;
  stats: ConnectorStats;
}

export async function runDemo(cluster: Cluster, options: DemoOptions): Promise<DemoResult> {
  const requests: DemoRequest[] = [];
  const total = options.sessions * options.turns;
  const report = (phase: DemoProgress['phase'], done: number) => {
    let [promptTokens, savedTokens] = [0, 0];
    for (const { promptTokens: prompt, prefillCached } of requests) {
      promptTokens += prompt;
      savedTokens += prefillCached.local + prefillCached.store;
    }
    options.onProgress?.({ phase, done, total, promptTokens, savedTokens });
  };

  const started = performance.now();
  report('serving', 0);
  await eachSession(options, async (session) => {
    const turn = options.turns - session.left;
    const prompt = options.encode(session.ask());
    const completion = await cluster.generate(prompt, { maxTokens: options.output, signal: options.signal });
    session.answer(completion.text);
    requests.push({ ...completion, session: session.id, turn, prompt });
    report('serving', requests.length);
  });
  const seconds = (performance.now() - started) / 1000;
  const stats = await cluster.stats();

  const again = performance.now();
  const baselineTtftMs: number[] = [];
  let verified = 0;
  let firstDifference: DemoResult['firstDifference'] = null;
  for (const [done, { prompt, tokens, session, turn }] of requests.entries()) {
    report('verifying', done);
    const expected = await options.recompute(prompt, options.output, options.signal);
    baselineTtftMs.push(expected.ttftMs);
    if (expected.tokens.length === tokens.length && expected.tokens.every((token, i) => token === tokens[i]))
      verified++;
    else firstDifference ??= { session, turn, expected: expected.tokens, actual: tokens };
  }
  report('verifying', requests.length);
  const baselineSeconds = (performance.now() - again) / 1000;
  return { requests, seconds, baselineSeconds, baselineTtftMs, verified, firstDifference, stats };
}

/** Runs the turns of each session one after another, `concurrency` sessions side by side, fairly: turn by turn. */
async function eachSession(options: DemoOptions, turn: (session: Session) => Promise<void>): Promise<void> {
  const waiting = sessions(options);
  let failure: unknown;
  const work = async () => {
    for (let session = waiting.shift(); session && failure === undefined; session = waiting.shift()) {
      if (options.signal.aborted) throw errors.aborted(options.signal.reason);
      await turn(session).catch((error) => {
        failure ??= error;
      });
      if (session.left > 0) waiting.push(session);
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, work));
  if (failure !== undefined) throw failure;
}
