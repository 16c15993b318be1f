/**
 * The byte tokenizer: a token is a byte of the UTF-8 text, and two more begin and end a text. The model only ever
 * generates printable ASCII (and the end), so that what it says can be read and goes back into a prompt unchanged.
 */
import { invalid } from './checks.js';

export const BOS = 256;
export const EOS = 257;
export const VOCABULARY = 258;

/** What greedy decoding chooses from: printable ASCII, and the end. */
export const GENERATED: readonly number[] = [...Array.from({ length: 95 }, (_, i) => 32 + i), EOS];

/** The tokens of a text, BOS first; `start: false` for a text that goes on after other tokens. */
export function encode(text: string, { start = true } = {}): Uint32Array {
  if (typeof text !== 'string') throw invalid('text', text, 'a string');
  const bytes = new TextEncoder().encode(text);
  const tokens = new Uint32Array(bytes.length + (start ? 1 : 0));
  if (start) tokens[0] = BOS;
  tokens.set(bytes, start ? 1 : 0);
  return tokens;
}

/** The text of tokens; BOS and EOS have none. */
export function decode(tokens: Iterable<number>): string {
  return new TextDecoder().decode(Uint8Array.from([...tokens].filter((token) => token < 256)));
}
