/**
 * A completion request as the proxy reads it, and the two bodies it becomes.
 *
 * The prefill engine gets the prompt and is asked for one token. Whatever could end that token otherwise than by the limit is
 * left out: vLLM's MooncakeConnector keeps a prompt's KV only for a request that ended by its length (request_finished, vLLM
 * 0.32), so an end-of-sequence or a stop string would let the decode wait for KV that nobody sends. The decode engine gets
 * the client's bytes. `kv_transfer_params` is never the client's: it names hosts that engines connect to.
 */
import { errors } from '../core/errors.js';
import { members, withMembers } from './json-members.js';

export type KvTransferParams = Readonly<Record<string, unknown>>;

/** Why a request is computed by a decode engine alone. */
export type NoHandover = 'several_prompts' | 'several_choices' | 'prompt_logprobs';

const OURS = 'kv_transfer_params';
const PREFILL_WITHOUT: ReadonlySet<string> = new Set([
  OURS,
  ...['stream', 'stream_options', 'max_tokens', 'max_completion_tokens', 'min_tokens', 'n', 'best_of'],
  ...['stop', 'stop_token_ids', 'ignore_eos'],
]);
const DECODE_WITHOUT: ReadonlySet<string> = new Set([OURS]);

export class CompletionRequest {
  readonly path: string;
  /** Its parsed fields; only read. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly bytes: Buffer;
  #members: ReturnType<typeof members> | undefined;

  /** @throws ERR_INVALID_ARGUMENT where the body is no JSON object or its model no string */
  constructor(path: string, bytes: Buffer) {
    this.path = path;
    this.bytes = bytes;
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString());
    } catch (error) {
      throw errors.invalidArgument('body', bytes.toString('utf8', 0, 256), `JSON (${(error as Error).message})`);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw errors.invalidArgument('body', value, 'a JSON object');
    }
    this.fields = value as Record<string, unknown>;
    const { model } = this.fields;
    if (model !== undefined && model !== null && typeof model !== 'string') {
      throw errors.invalidArgument('model', model, 'a string');
    }
  }

  get model(): string | undefined {
    return typeof this.fields.model === 'string' ? this.fields.model : undefined;
  }

  /** Why one transfer cannot serve it: a transfer carries the KV of one prompt to one sequence, once. */
  get noHandover(): NoHandover | undefined {
    const { prompt, n, best_of: bestOf, prompt_logprobs: promptLogprobs, echo, logprobs } = this.fields;
    if (Array.isArray(prompt) && prompt.length > 1 && typeof prompt[0] !== 'number') return 'several_prompts';
    if ((typeof n === 'number' && n > 1) || (typeof bestOf === 'number' && bestOf > 1)) return 'several_choices';
    // These need the logits of the whole prompt, which KV from elsewhere does not give.
    if (typeof promptLogprobs === 'number' || (echo === true && typeof logprobs === 'number')) return 'prompt_logprobs';
    return undefined;
  }

  /** A prompt's length where it must be guessed: four characters a token. */
  get estimatedTokens(): number {
    const { prompt } = this.fields;
    if (Array.isArray(prompt) && typeof prompt[0] === 'number') return prompt.length;
    return this.bytes.length >> 2;
  }

  prefillBody(params: KvTransferParams | undefined): Buffer {
    const limits = {
      max_tokens: 1,
      ...('max_completion_tokens' in this.fields && { max_completion_tokens: 1 }),
      stream: false,
      ignore_eos: true,
    };
    return this.#edit(PREFILL_WITHOUT, params === undefined ? limits : { ...limits, [OURS]: params });
  }

  decodeBody(params: KvTransferParams | undefined): Buffer {
    if (params === undefined && !(OURS in this.fields)) return this.bytes;
    return this.#edit(DECODE_WITHOUT, params === undefined ? {} : { [OURS]: params });
  }

  #edit(without: ReadonlySet<string>, added: Readonly<Record<string, unknown>>): Buffer {
    this.#members ??= members(this.bytes);
    return withMembers(this.bytes, this.#members, without, added);
  }
}
