/** Completions as a client of an OpenAI-compatible server streams them. */
import * as assert from 'uvu/assert';
import { MODEL } from './server.js';

const STREAM_MS = 240_000;

export interface StreamOptions {
  /** Members of the request beside those of a greedy completion of 40 tokens. */
  readonly more?: Record<string, unknown>;
  readonly signal?: AbortSignal;
  /** Told of each event's tokens as they come. */
  readonly onTokens?: (tokens: readonly number[]) => void;
}

export interface Streamed {
  readonly status: number;
  readonly tokens: readonly number[];
  /** The stream was ended by `[DONE]`. */
  readonly done: boolean;
  /** Of an event that says so, or of an answer that is no stream. */
  readonly error?: string;
}

/** Streams a greedy completion to its end, however it ends. */
export async function streamed(
  url: string,
  prompt: readonly number[],
  { more, signal, onTokens }: StreamOptions = {},
): Promise<Streamed> {
  const fixed = { model: MODEL, prompt, temperature: 0, ignore_eos: true, return_token_ids: true, max_tokens: 40 };
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...fixed, stream: true, ...more }),
    signal: AbortSignal.any([AbortSignal.timeout(STREAM_MS), ...(signal ? [signal] : [])]),
  });
  const tokens: number[] = [];
  if (response.status !== 200) return { status: response.status, tokens, done: false, error: await response.text() };
  let [text, done, error] = ['', false, undefined as string | undefined];
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const events = (text + part.value).split('\n\n');
    text = events.pop()!;
    for (const event of events) {
      assert.is(event.slice(0, 6), 'data: ');
      assert.is(done, false, 'nothing comes after [DONE]');
      if (event === 'data: [DONE]') {
        done = true;
        continue;
      }
      const data = JSON.parse(event.slice(6));
      if (data.error) error = JSON.stringify(data.error);
      const more = data.choices?.[0]?.token_ids ?? [];
      tokens.push(...more);
      if (more.length > 0) onTokens?.(more);
    }
  }
  return { status: 200, tokens, done, error };
}

/** The tokens of a stream that must go well. */
export async function stream(url: string, prompt: readonly number[], options?: StreamOptions): Promise<number[]> {
  const { status, tokens, done, error } = await streamed(url, prompt, options);
  assert.ok(status === 200 && done && error === undefined, `${status}, ${done ? '' : 'not '}done: ${error}`);
  return [...tokens];
}
