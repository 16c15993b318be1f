/** What `generate` returns at once: a request under way, its tokens as they come, and its result in the end. */
import { type KvTransferParams, MooncakeError } from 'mooncake-ts';
import type { Request } from './request.js';
import { decode } from './tokenizer.js';

export interface GenerationResult {
  readonly requestId: string;
  /** The tokens generated; `stop`: the last one is EOS. */
  readonly tokens: readonly number[];
  readonly text: string;
  readonly finishReason: 'stop' | 'length';
  /** Where the KV of the prompt's tokens came from when the request first started; together `promptTokens`. */
  readonly promptTokens: number;
  readonly cached: {
    /** The engine's own blocks. */
    readonly local: number;
    /** The connector: a store, or another engine. */
    readonly external: number;
    /** None: computed here. */
    readonly none: number;
  };
  /** Milliseconds from the call to the first token, and to the last. */
  readonly ttftMs: number;
  readonly durationMs: number;
  /** What the connector wants the router to pass on. */
  readonly kvTransferParams: KvTransferParams | null;
}

export class Generation implements AsyncIterable<number> {
  readonly requestId: string;
  /** Rejects with ERR_ABORTED, ERR_CLOSED, or why the engine failed. */
  readonly result: Promise<GenerationResult>;
  readonly #started = performance.now();
  readonly #onAbort: () => void;
  readonly #tokens: number[] = [];
  #ttftMs = 0;
  #resolve!: (result: GenerationResult) => void;
  #reject!: (error: unknown) => void;
  /** Ends the wait of whoever iterates. */
  #changed: () => void = () => {};
  #ended = false;

  constructor(requestId: string, onAbort: () => void) {
    this.requestId = requestId;
    this.#onAbort = onAbort;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Who iterates learns of an error there, and may never look at the result.
    this.result.catch(() => {});
  }

  /** Stops the request; no effect on one that has ended. */
  abort(reason?: unknown): void {
    if (this.#ended) return;
    this.fail(new MooncakeError('ERR_ABORTED', `request ${this.requestId} was aborted`, { cause: reason }));
    this.#onAbort();
  }

  /** The tokens, each as soon as it is there. Leaving the loop early aborts the request. */
  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, undefined> {
    try {
      for (let next = 0; ; next++) {
        while (next === this.#tokens.length) {
          if (this.#ended) return void (await this.result);
          await new Promise<void>((resolve) => {
            this.#changed = resolve;
          });
        }
        yield this.#tokens[next];
      }
    } finally {
      this.abort('its reader left');
    }
  }

  /** @internal */
  push(token: number): void {
    if (this.#tokens.push(token) === 1) this.#ttftMs = performance.now() - this.#started;
    this.#changed();
  }

  /** @internal */
  finish(request: Request, finishReason: 'stop' | 'length', kvTransferParams: KvTransferParams | null): void {
    const { local, external } = request.cached;
    const promptTokens = request.numPromptTokens;
    this.#ended = true;
    this.#resolve({
      requestId: this.requestId,
      tokens: this.#tokens,
      text: decode(this.#tokens),
      finishReason,
      promptTokens,
      cached: { local, external, none: promptTokens - local - external },
      ttftMs: this.#ttftMs,
      durationMs: performance.now() - this.#started,
      kvTransferParams,
    });
    this.#changed();
  }

  /** @internal */
  fail(error: unknown): void {
    this.#ended = true;
    this.#reject(error);
    this.#changed();
  }
}
