/**
 * The scheduler half of MooncakeConnector. It serves both sides, as an engine of role `both` may prefill for one request
 * and decode another: which side a request is on is said by its transfer parameters.
 *
 * A prefill request is handed over when it has ended with its prompt computed, which its first output token proves: that
 * token was sampled from the prompt's last position. A decode request asks for its whole prompt once; if that load fails,
 * the engine computes it like any other. Where the cache has states, it asks for what is before the last state that the
 * prompt's last token can be computed from: a state that has seen a token cannot see it again.
 */
import type {
  ConnectorOutput,
  ConnectorStats,
  EngineInfo,
  GroupBlocks,
  KvRequest,
  KvTransferParams,
  SchedulerConnector,
  SchedulerOutput,
} from './api.js';
import {
  type HandoverMetadata,
  type HandoverSource,
  handoverSource,
  type PromptName,
  promptName,
  type RankInfo,
} from './handover.js';
import { leastCommonMultiple } from './handover-move.js';
import { readRoster } from './handover-wire.js';

/** A request that prefills for a decode elsewhere. */
interface Prefill {
  readonly request: KvRequest;
  readonly transfer: string;
  readonly prompt: PromptName;
  /**
   * Tokens it had when it was last scheduled from the start; one more proves that all of those are computed. Infinite while
   * it is not scheduled: then nothing of its blocks is on its way.
   */
  startTokens: number;
}

/** A request whose prompt is elsewhere: how far it got. */
interface Decode {
  readonly source: HandoverSource;
  readonly prompt: PromptName;
  state: 'waiting' | 'loading' | 'settled';
  /** Tokens that were there when it was last asked what the connector can bring. */
  computed: number;
}

export class MooncakeScheduler implements SchedulerConnector {
  readonly #engine: EngineInfo;
  readonly #prefills = new Map<string, Prefill>();
  readonly #decodes = new Map<string, Decode>();
  /** Transfer ids of prefills, from their begin until their blocks are free. */
  readonly #transfers = new Set<string>();
  /** Transfer by request whose blocks the workers keep. */
  readonly #held = new Map<string, string>();
  /** Requests whose load the workers have not reported yet. */
  readonly #loading = new Set<string>();
  #roster: readonly RankInfo[] = [];
  /** Tokens between states that can be gone on from; 1 without states: from any token on. */
  #stateTokens = 1;
  #next = emptyMetadata();
  #closed = false;
  readonly #stats = { handoversRefused: 0, loadsRequested: 0, tokensRequested: 0, handoversUnwanted: 0 };

  constructor(engine: EngineInfo) {
    this.#engine = engine;
  }

  setHandshakeMetadata(metadata: readonly unknown[]): void {
    this.#roster = readRoster(metadata);
    this.#next.roster = this.#roster;
    const states = this.#roster[0].layout.groups.filter(({ kind }) => kind === 'state');
    if (states.length === 0) return;
    this.#stateTokens = leastCommonMultiple(this.#engine.hash.blockSize, ...states.map(({ blockSize }) => blockSize));
  }

  onNewRequest(request: KvRequest): void {
    const { requestId, kvTransferParams: params } = request;
    const { role, hash } = this.#engine;
    if (params?.do_remote_prefill) {
      const source = role === 'producer' ? null : handoverSource(params);
      const prompt = source && namePrompt(request, hash.blockSize);
      if (source && prompt) this.#decodes.set(requestId, { source, prompt, state: 'waiting', computed: 0 });
      else this.#stats.handoversRefused++;
    } else if (params?.do_remote_decode) {
      const { transfer_id: transfer } = params;
      // Without an id nobody can ask for it, and a second one of the same id could be taken for the first.
      const named = typeof transfer === 'string' && transfer !== '' && !this.#transfers.has(transfer);
      const prompt = named && role !== 'consumer' && namePrompt(request, hash.blockSize);
      if (!named || !prompt) {
        this.#stats.handoversRefused++;
        return;
      }
      this.#transfers.add(transfer);
      this.#prefills.set(requestId, { request, transfer, prompt, startTokens: Number.POSITIVE_INFINITY });
    }
  }

  getNumNewMatchedTokens(request: KvRequest, numComputedTokens: number): [tokens: number | null, async: boolean] {
    const decode = this.#decodes.get(request.requestId);
    if (decode?.state !== 'waiting') return [0, false];
    decode.computed = numComputedTokens;
    const { numPromptTokens: prompt } = request;
    const most = this.#stateTokens === 1 ? prompt : prompt - 1 - ((prompt - 1) % this.#stateTokens);
    const tokens = Math.max(0, most - numComputedTokens);
    return [tokens, tokens > 0];
  }

  updateStateAfterAlloc(request: KvRequest, blockIds: GroupBlocks, numExternalTokens: number): void {
    const decode = this.#decodes.get(request.requestId);
    if (decode?.state !== 'waiting') return;
    if (numExternalTokens === 0) {
      this.#unwanted(request.requestId, decode);
      return;
    }
    const { source, prompt, computed: from } = decode;
    const to = from + numExternalTokens;
    decode.state = 'loading';
    this.#loading.add(request.requestId);
    this.#stats.loadsRequested++;
    this.#stats.tokensRequested += numExternalTokens;
    this.#next.loads.push({ request: request.requestId, source, prompt, from, to, blocks: blockIds });
  }

  buildConnectorMeta(output: SchedulerOutput): HandoverMetadata {
    for (const requestId of output.preemptedRequestIds) {
      // It starts again, and the workers drop its load unreported.
      this.#loading.delete(requestId);
      const [prefill, decode] = [this.#prefills.get(requestId), this.#decodes.get(requestId)];
      if (prefill) prefill.startTokens = Number.POSITIVE_INFINITY;
      if (decode?.state === 'waiting') this.#unwanted(requestId, decode);
      else if (decode) decode.state = 'settled';
    }
    for (const { requestId, blockIds, numComputedTokens: from } of output.newRequests) {
      const prefill = this.#prefills.get(requestId);
      if (prefill === undefined) continue;
      prefill.startTokens = prefill.request.tokens.length;
      const to = from + (output.numScheduledTokens[requestId] ?? 0);
      const { transfer, prompt } = prefill;
      this.#next.steps.push({ transfer, request: requestId, prompt, blocks: blockIds, from, to });
    }
    for (const { requestId, newBlockIds: blocks, numComputedTokens: from } of output.cachedRequests) {
      const prefill = this.#prefills.get(requestId);
      if (prefill === undefined || from >= prefill.prompt.tokens) continue;
      const to = from + (output.numScheduledTokens[requestId] ?? 0);
      this.#next.steps.push({ transfer: prefill.transfer, request: requestId, blocks, from, to });
    }
    const metadata = this.#next;
    this.#next = emptyMetadata();
    return metadata;
  }

  updateConnectorOutput({ finishedSending, finishedReceiving }: ConnectorOutput): void {
    for (const requestId of finishedReceiving) {
      this.#loading.delete(requestId);
      const decode = this.#decodes.get(requestId);
      if (decode) decode.state = 'settled';
    }
    for (const requestId of finishedSending) {
      const transfer = this.#held.get(requestId);
      this.#held.delete(requestId);
      if (transfer !== undefined) this.#transfers.delete(transfer);
    }
  }

  requestFinished(request: KvRequest, blockIds: GroupBlocks): [delayFree: boolean, params: KvTransferParams | null] {
    const { requestId } = request;
    const decode = this.#decodes.get(requestId);
    this.#decodes.delete(requestId);
    if (decode?.state === 'waiting') this.#unwanted(requestId, decode);
    // The engine keeps the blocks of a load until it is reported, aborted or not.
    if (decode?.state === 'loading') this.#next.cancelled.push(requestId);

    const prefill = this.#prefills.get(requestId);
    this.#prefills.delete(requestId);
    if (prefill === undefined) return [false, null];
    const { transfer, prompt } = prefill;
    const computed = request.tokens.length > prefill.startTokens;
    const [bootstrap] = this.#roster;
    if (!computed || bootstrap === undefined || this.#closed || isEmpty(blockIds)) {
      return [this.#withdraw(prefill, blockIds), null];
    }
    this.#next.offers.push({ request: requestId, transfer, prompt, blocks: blockIds });
    this.#held.set(requestId, transfer);
    const params: KvTransferParams = {
      ...request.kvTransferParams,
      do_remote_decode: false,
      do_remote_prefill: true,
      transfer_id: transfer,
      remote_engine_id: this.#engine.engineId,
      remote_bootstrap_addr: bootstrap.address,
      remote_generation: bootstrap.generation,
    };
    return [true, params];
  }

  hasPendingWork(): boolean {
    const { roster, offers, withdrawn, loads, cancelled, unwanted } = this.#next;
    const queued = [offers, withdrawn, loads, cancelled, unwanted].some((list) => list.length > 0);
    return queued || roster !== undefined || this.#held.size > 0 || this.#loading.size > 0;
  }

  stats(): ConnectorStats {
    return { ...this.#stats };
  }

  async shutdown(): Promise<void> {
    this.#closed = true;
    this.#next = emptyMetadata();
  }

  /** Whether the blocks have to be kept: layers of them may be on their way to a decode. */
  #withdraw({ request: { requestId }, transfer, startTokens }: Prefill, blockIds: GroupBlocks): boolean {
    const keep = startTokens < Number.POSITIVE_INFINITY && !this.#closed && !isEmpty(blockIds);
    this.#next.withdrawn.push({ transfer, ...(keep && { held: requestId }) });
    if (keep) this.#held.set(requestId, transfer);
    else this.#transfers.delete(transfer);
    return keep;
  }

  /** Nothing of the prefill's blocks is needed: it may free them. */
  #unwanted(request: string, decode: Decode): void {
    decode.state = 'settled';
    this.#stats.handoversUnwanted++;
    this.#next.unwanted.push({ request, source: decode.source });
  }
}

type Pending = {
  -readonly [K in keyof HandoverMetadata]: HandoverMetadata[K] extends readonly (infer E)[] ? E[] : HandoverMetadata[K];
};

function emptyMetadata(): Pending {
  return { steps: [], offers: [], withdrawn: [], loads: [], cancelled: [], unwanted: [] };
}

const isEmpty = (blockIds: GroupBlocks) => blockIds.every((group) => group.length === 0);

/** Null for a prompt that cannot be named, as its tokens or extra keys are none: it is not handed over. */
function namePrompt(request: KvRequest, blockSize: number): PromptName | null {
  try {
    return promptName(request, blockSize);
  } catch {
    return null;
  }
}
