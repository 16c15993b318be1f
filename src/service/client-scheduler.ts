/**
 * A scheduler half that lives in the service. Calls are answered within the turn; what needs no answer goes along with the
 * next. While the service is not there nothing is found and nothing is saved.
 */
import type {
  ConnectorOutput,
  ConnectorStats,
  GroupBlocks,
  KvRequest,
  KvTransferParams,
  SchedulerConnector,
  SchedulerOutput,
} from '../connector/api.js';
import type { Link } from './client-link.js';
import type { Run } from './envelope.js';
import type { StepAnswer } from './scheduler-session.js';

/** What a step's workers do, and what they have to answer for should the service be lost. */
export interface ClientMetadata {
  readonly meta: Uint8Array | null;
  /** Loads that begin in this step: their blocks. */
  readonly loads: readonly (readonly [request: string, async: boolean, blocks: readonly number[]])[];
  /** Requests that have ended and whose blocks are kept until all ranks have sent them. */
  readonly held: readonly string[];
  /** The run that the scheduler half has lost: what workers were told of it, and what this step says, has to be given up. */
  readonly lost: Run | null;
}

export class ServiceScheduler implements SchedulerConnector {
  readonly #link: Link;
  /** Requests that the service knows, with the number of tokens that it has been told of. */
  readonly #told = new Map<string, { readonly request: KvRequest; tokens: number }>();
  readonly #async = new Map<string, boolean>();
  #loads: [string, boolean, readonly number[]][] = [];
  #held: string[] = [];
  /** Requests that workers have still to report. */
  readonly #open = new Set<string>();
  /** Requests that a lost service may still read blocks of. */
  readonly #doubtful = new Set<string>();
  /** The run that knows what was told. */
  #run: Run | undefined;
  #pending = false;

  constructor(link: Link) {
    this.#link = link;
    this.#run = link.run;
  }

  onNewRequest(request: KvRequest): void {
    const { requestId: id, numPromptTokens: prompt, extraKeys, kvTransferParams: params } = request;
    if (!this.#link.up) return;
    this.#told.set(id, { request, tokens: request.tokens.length });
    const tokens = binary(request, 0);
    this.#link.send('scheduler.request', { id, prompt, tokens, extraKeys: extraKeys ?? null, params: params ?? null });
  }

  getNumNewMatchedTokens(request: KvRequest, computed: number): [number | null, boolean] {
    if (!this.#knows(request)) return [0, false];
    const args = { id: request.requestId, computed, append: this.#append(request.requestId) };
    const answer = this.#link.now<[number | null, boolean]>('scheduler.matched', args) ?? [0, false];
    this.#async.set(request.requestId, answer[1]);
    return answer;
  }

  updateStateAfterAlloc(request: KvRequest, blocks: GroupBlocks, external: number): void {
    if (!this.#knows(request)) return;
    this.#link.send('scheduler.allocated', { id: request.requestId, blocks, external });
    if (external === 0) return;
    const isAsync = this.#async.get(request.requestId) ?? false;
    if (isAsync) this.#open.add(request.requestId);
    this.#loads.push([request.requestId, isAsync, blocks.flat()]);
  }

  buildConnectorMeta(output: SchedulerOutput): ClientMetadata {
    const { newRequests, cachedRequests, numScheduledTokens, finishedRequestIds, preemptedRequestIds } = output;
    const answer = this.#link.now<StepAnswer>('scheduler.step', {
      new: newRequests.map(({ requestId: id, blockIds: blocks, numComputedTokens: computed, resumed = false }) => {
        return { id, blocks, computed, resumed, append: this.#append(id) };
      }),
      cached: cachedRequests.map(({ requestId: id, newBlockIds: blocks, numComputedTokens: computed }) => {
        return { id, blocks, computed, append: this.#append(id) };
      }),
      scheduled: numScheduledTokens,
      finished: finishedRequestIds,
      preempted: preemptedRequestIds,
    });
    for (const id of preemptedRequestIds) this.#open.delete(id);
    const lost = answer === undefined ? (this.#run ?? null) : null;
    const metadata = { meta: answer?.meta ?? null, loads: this.#loads, held: this.#held, lost };
    [this.#loads, this.#held] = [[], []];
    this.#pending = answer?.pending ?? false;
    if (lost !== null) this.#forget();
    this.#link.revive();
    this.#run = this.#link.run;
    return metadata;
  }

  updateConnectorOutput(output: ConnectorOutput): void {
    const { finishedSending: sending, finishedReceiving: receiving, invalidBlockIds: invalid } = output;
    for (const id of [...sending, ...receiving]) this.#open.delete(id);
    if (sending.length + receiving.length + invalid.length === 0) return;
    this.#link.send('scheduler.output', { sending, receiving, invalid });
  }

  requestFinished(request: KvRequest, blocks: GroupBlocks): [boolean, KvTransferParams | null] {
    const id = request.requestId;
    this.#async.delete(id);
    let [keep, params]: [boolean, KvTransferParams | null] = [this.#doubtful.has(id), null];
    if (this.#told.has(id)) {
      const args = { id, blocks, append: this.#append(request.requestId) };
      this.#told.delete(id);
      // A service that does not answer may read the blocks for a while: the workers say when it does not any more.
      [keep, params] = this.#link.now<[boolean, KvTransferParams | null]>('scheduler.finished', args) ?? [true, null];
    }
    if (keep) {
      this.#held.push(id);
      this.#open.add(id);
    }
    return [keep, params];
  }

  hasPendingWork(): boolean {
    return this.#pending || this.#loads.length + this.#held.length + this.#open.size > 0;
  }

  /** The service passes on what the ranks that are attached to it said of themselves. */
  setHandshakeMetadata(_metadata: readonly unknown[]): void {}

  stats(): ConnectorStats {
    return this.#link.now<ConnectorStats>('scheduler.stats') ?? {};
  }

  shutdown(): Promise<void> {
    return this.#link.close();
  }

  #knows({ requestId }: KvRequest): boolean {
    return this.#told.has(requestId) && this.#link.up;
  }

  /** Tokens that came since the request was last named; nil where there are none. */
  #append(id: string): Uint8Array | null {
    const told = this.#told.get(id);
    if (told === undefined || told.request.tokens.length === told.tokens) return null;
    const from = told.tokens;
    told.tokens = told.request.tokens.length;
    return binary(told.request, from);
  }

  /** The service knows nothing any more; until the connection has ended it may go on with what it knew. */
  #forget(): void {
    const ids = [...this.#told.keys()];
    for (const id of ids) this.#doubtful.add(id);
    void this.#link.ended.then(() => {
      for (const id of ids) this.#doubtful.delete(id);
    });
    this.#told.clear();
    this.#async.clear();
  }
}

/** Token ids from `from` on, u32 little-endian. */
function binary({ tokens }: KvRequest, from: number): Uint8Array {
  return new Uint8Array(Uint32Array.from(tokens.slice(from)).buffer);
}
