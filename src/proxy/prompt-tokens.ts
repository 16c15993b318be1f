/**
 * The token ids of a prompt, for the choice by prefix: from the request where it has them, else from an engine's `/tokenize`,
 * which is given 20 ms. An answer that comes later is too late for its request, and kept for the next with the same text.
 */
import { createHash } from 'node:crypto';
import { errors } from '../core/errors.js';
import type { CompletionRequest } from './completion.js';
import { bodyOf, type Upstream } from './upstream.js';

export type TokensFrom = 'request' | 'cache' | 'engine' | 'late' | 'failed' | 'unknown';

export interface PromptTokens {
  readonly tokens: Uint32Array | undefined;
  readonly from: TokensFrom;
}

const DEADLINE_MS = 20;
/** An answer after this is not waited for by anyone. */
const GIVE_UP_MS = 2000;
const MAX_ANSWER = 64 * 2 ** 20;
/** Bytes of token ids that the cache holds. */
const CACHE_BYTES = 64 * 2 ** 20;

/** Fields of a chat request that shape its prompt (vLLM's TokenizeChatRequest). */
const CHAT_FIELDS = ['messages', 'tools', 'add_generation_prompt', 'continue_final_message', 'chat_template'] as const;
const OTHER_FIELDS = ['model', 'add_special_tokens', 'chat_template_kwargs', 'mm_processor_kwargs'] as const;

export class PromptTokenizer {
  readonly #cache = new Map<string, Uint32Array>();
  #cacheBytes = 0;

  /** `engine` is asked; undefined where there is none. */
  async tokensOf(request: CompletionRequest, engine: Upstream | undefined): Promise<PromptTokens> {
    const { prompt } = request.fields;
    const list = Array.isArray(prompt) && prompt.length === 1 && Array.isArray(prompt[0]) ? prompt[0] : prompt;
    if (Array.isArray(list)) {
      const tokens = typeof list[0] === 'number' ? tokenIds(list) : undefined;
      return { tokens, from: tokens ? 'request' : 'unknown' };
    }
    const question = questionOf(request);
    if (question === undefined || engine === undefined) return { tokens: undefined, from: 'unknown' };
    const key = createHash('sha256').update(question).digest('base64');
    const known = this.#cache.get(key);
    if (known !== undefined) {
      // The most recently used is the last to go.
      this.#cache.delete(key);
      this.#cache.set(key, known);
      return { tokens: known, from: 'cache' };
    }
    const asked = this.#ask(engine, question).then((tokens) => {
      this.#keep(key, tokens);
      return { tokens, from: 'engine' } as const;
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<PromptTokens>((resolve) => {
      timer = setTimeout(() => resolve({ tokens: undefined, from: 'late' }), DEADLINE_MS);
    });
    return Promise.race([asked.catch(() => ({ tokens: undefined, from: 'failed' as const })), late]).finally(() =>
      clearTimeout(timer),
    );
  }

  async #ask(engine: Upstream, body: Buffer): Promise<Uint32Array> {
    const { url } = engine.address;
    const signal = AbortSignal.timeout(GIVE_UP_MS);
    const headers = { 'content-type': 'application/json' };
    const response = await engine.call({ method: 'POST', path: '/tokenize', headers, body, signal });
    const answer = await bodyOf(response, url, MAX_ANSWER);
    const tokens = response.statusCode === 200 ? tokenIds(JSON.parse(answer.toString())?.tokens) : undefined;
    if (tokens === undefined) throw errors.peer(url, `/tokenize answers ${response.statusCode}`);
    return tokens;
  }

  #keep(key: string, tokens: Uint32Array): void {
    if (tokens.byteLength > CACHE_BYTES / 8 || this.#cache.has(key)) return;
    this.#cache.set(key, tokens);
    this.#cacheBytes += tokens.byteLength + key.length;
    for (const [old, { byteLength }] of this.#cache) {
      if (this.#cacheBytes <= CACHE_BYTES) break;
      this.#cache.delete(old);
      this.#cacheBytes -= byteLength + old.length;
    }
  }
}

/** Undefined for what is no list of token ids. */
function tokenIds(value: unknown): Uint32Array | undefined {
  if (!Array.isArray(value)) return undefined;
  for (const id of value) if (!Number.isInteger(id) || id < 0 || id > 0xffff_ffff) return undefined;
  return Uint32Array.from(value as number[]);
}

/** The body of `/tokenize`; undefined for a prompt that it cannot be asked for. */
function questionOf({ path, fields }: CompletionRequest): Buffer | undefined {
  const isChat = path.startsWith('/v1/chat/');
  if (isChat ? !Array.isArray(fields.messages) : typeof fields.prompt !== 'string') return undefined;
  const names = [...(isChat ? CHAT_FIELDS : ['prompt']), ...OTHER_FIELDS];
  const present = names.filter((name) => fields[name] !== undefined && fields[name] !== null);
  return Buffer.from(JSON.stringify(Object.fromEntries(present.map((name) => [name, fields[name]]))));
}
