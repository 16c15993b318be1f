/**
 * What a request that is to start need not compute: the longest prefix in the engine's own blocks, and what the connector
 * has beyond it.
 */
import type { SchedulerConnector } from 'mooncake-ts';
import type { BlockPool } from './block-pool.js';
import type { Request } from './request.js';

export interface Offer {
  /** Blocks of the engine's own that hold the first tokens. */
  readonly matched: readonly number[];
  /** Tokens beyond them that the connector brings. */
  readonly external: number;
  /** It brings them while other requests run. */
  readonly async: boolean;
  /** Tokens that need not be computed: all of these, but never the last token, which says what follows. */
  readonly computed: number;
}

export class Admission {
  readonly #pool: BlockPool;
  readonly #blockSize: number;
  readonly #connector: SchedulerConnector | undefined;
  readonly #lookupTimeoutMs: number;
  /** Since when a connector has been finding out. */
  readonly #asked = new Map<string, number>();

  constructor(pool: BlockPool, blockSize: number, connector: SchedulerConnector | undefined, lookupTimeoutMs: number) {
    this.#pool = pool;
    this.#blockSize = blockSize;
    this.#connector = connector;
    this.#lookupTimeoutMs = lookupTimeoutMs;
  }

  /** Null: the connector does not know yet. `now` in milliseconds. */
  offer(request: Request, now: number): Offer | null {
    const most = request.length - 1;
    const matched = this.#pool.match(request.hashes.slice(0, Math.floor(most / this.#blockSize)));
    const local = matched.length * this.#blockSize;
    const [external, async] = this.#ask(request, local, now);
    if (external === null) return null;
    return { matched, external, async: async && external > 0, computed: Math.min(local + external, most) };
  }

  /** Forgets a request that is gone. */
  forget(requestId: string): void {
    this.#asked.delete(requestId);
  }

  #ask(request: Request, local: number, now: number): [number | null, boolean] {
    if (this.#connector === undefined || !request.mayLoad) return [0, false];
    const answer = this.#connector.getNumNewMatchedTokens(request, local);
    if (answer[0] !== null) {
      this.#asked.delete(request.requestId);
      return answer;
    }
    const since = this.#asked.get(request.requestId);
    if (since === undefined) this.#asked.set(request.requestId, now);
    // A connector that never finds out keeps nobody waiting: the request computes what it lacks.
    return since !== undefined && now - since > this.#lookupTimeoutMs ? [0, false] : answer;
  }
}
