/**
 * The store connector's scheduler half: hashes prompts, asks the store what it has of them, and tells the workers what to
 * load and save. It never waits: a lookup is answered "not known yet" until it is known.
 *
 * A step never both loads synchronously and saves for one request: were the load to fail on one rank, the other ranks
 * would have computed on wrong bytes without knowing. Such blocks are saved one step later.
 */
import { errors, MooncakeError } from '../core/errors.js';
import type { HashOptions } from '../core/hash/plan.js';
import type { ObjectStore } from '../store/api.js';
import type {
  CachedRequestData,
  ConnectorOutput,
  ConnectorStats,
  EngineInfo,
  GroupBlocks,
  KvRequest,
  KvTransferParams,
  NewRequestData,
  SchedulerConnector,
  SchedulerOutput,
} from './api.js';
import { checkNeighbours } from './store-attach.js';
import { type LookupLimits, longestPrefix, lookUp, needsOf, type StoreNeeds } from './store-lookup.js';
import type { LoadJob, NamespaceClaim, SaveJob, StoreHandshake, StoreStep } from './store-metadata.js';
import { type Lookup, StoreRequest } from './store-request.js';

export interface StoreSchedulerOptions {
  readonly store: ObjectStore;
  readonly tenant: string | undefined;
  readonly loadAsync: boolean;
  readonly lookupTimeoutMs: number;
  /** How long an answer of the store is believed. */
  readonly lookupTtlMs: number;
  /** Has a claim checked: whether the namespace may be used. Never rejects. */
  readonly attach: (claim: NamespaceClaim) => Promise<boolean>;
  /** Told why a lookup failed; nothing is loaded then. */
  readonly onError: (error: unknown) => void;
  /** Says why a claim that was granted holds no longer. */
  readonly refuse: (claim: NamespaceClaim, error: MooncakeError) => void;
}

/** First lookups that also look for what vLLM's own connector wrote, where nobody chose how to treat it. */
const NEIGHBOUR_CHECKS = 32;
const ATTACH_AGAIN_MS = 1000;

export class StoreScheduler implements SchedulerConnector {
  readonly #engine: EngineInfo;
  readonly #options: StoreSchedulerOptions;
  readonly #hash: HashOptions;
  /** Undefined: a request whose blocks have no hashes; it is computed, and shared with nobody. */
  readonly #requests = new Map<string, StoreRequest | undefined>();
  #needs: StoreNeeds | undefined;
  /** Tokens that a prefix can be a multiple of: whole blocks of every group. */
  #step = 1;
  /** Undefined until the namespace has been checked. */
  #attached: boolean | undefined;
  #claims: readonly NamespaceClaim[] = [];
  /** When the claims were last checked, by performance.now(). */
  #checked = 0;
  /** A claim that has to be checked against its neighbours. */
  #unchosen: NamespaceClaim | undefined;
  #neighbourChecks = 0;
  #loads: StoreRequest[] = [];
  #lastSaves: SaveJob[] = [];
  #aborted: string[] = [];
  #cancelled: string[] = [];
  #release: string[] = [];
  /** Finished requests whose blocks the engine keeps for us. */
  readonly #releasing = new Set<string>();
  readonly #stats = {
    lookups: 0,
    failedLookups: 0,
    lookedUpTokens: 0,
    hitTokens: 0,
    refusedLookups: 0,
    unhashableRequests: 0,
    failedLoads: 0,
  };

  constructor(engine: EngineInfo, options: StoreSchedulerOptions) {
    this.#engine = engine;
    this.#options = options;
    this.#hash = { ...engine.hash };
  }

  setHandshakeMetadata(metadata: readonly unknown[]): void {
    const handshakes = metadata.map((each, index) => {
      const { connector, version } = (each ?? {}) as Partial<StoreHandshake>;
      if (connector === 'MooncakeStoreConnector' && version === 1) return each as StoreHandshake;
      throw errors.invalidArgument(
        `metadata[${index}]`,
        each,
        'what a worker of MooncakeStoreConnector said of itself',
      );
    });
    const needs = needsOf(handshakes);
    for (const [group, { blockSize }] of needs.groups.entries()) {
      if (blockSize % this.#hash.blockSize !== 0) {
        const expected = `a multiple of the hash's block size ${this.#hash.blockSize}`;
        throw errors.invalidArgument(`metadata.groups[${group}].blockSize`, blockSize, expected);
      }
    }
    this.#needs = needs;
    this.#step = needs.groups.map(({ blockSize }) => blockSize).reduce(leastCommonMultiple);
    this.#claims = handshakes.map(({ claim }) => claim);
    this.#unchosen = this.#claims.find(({ integrity }) => integrity === null);
    this.#attached = undefined;
    this.#attach();
  }

  onNewRequest(_request: KvRequest): void {}

  getNumNewMatchedTokens(request: KvRequest, numComputedTokens: number): [number | null, boolean] {
    const limit = request.tokens.length - 1;
    if (this.#engine.role === 'producer' || limit < this.#step) return [0, false];
    // Whole blocks are loaded: of one that the engine has in part, the rest would be missing.
    if (numComputedTokens % this.#step !== 0) return [0, false];
    const own = this.#track(request);
    if (own === undefined || own.loadFailed || this.#needs === undefined) return [0, false];
    if (this.#attached === undefined) return [null, false];
    if (!this.#attached) {
      // A store that could not be asked then may be there now; a refusal stays one.
      if (performance.now() - this.#checked > ATTACH_AGAIN_MS) this.#attach();
      this.#stats.refusedLookups++;
      this.#options.store.countMiss('namespace', Math.floor(limit / this.#hash.blockSize));
      return [0, false];
    }
    const { lookup } = own;
    if (lookup === undefined || this.#stale(lookup, request, numComputedTokens)) {
      own.dropLookup();
      this.#lookUp(own, numComputedTokens);
      return [null, false];
    }
    if (lookup.answered === undefined) return [null, false];
    own.offer = undefined;
    if (lookup.presence === undefined) return [0, false];
    const end = longestPrefix(lookup.presence, this.#needs.groups, numComputedTokens, limit, this.#step);
    if (end <= numComputedTokens) return [0, false];
    own.offer = { from: numComputedTokens, to: end };
    return [end - numComputedTokens, this.#options.loadAsync];
  }

  updateStateAfterAlloc(request: KvRequest, blockIds: GroupBlocks, numExternalTokens: number): void {
    const own = this.#track(request);
    if (own === undefined) return;
    own.setBlocks(blockIds);
    const { offer } = own;
    own.offer = undefined;
    if (numExternalTokens === 0) return;
    const span = offer && { from: offer.from, to: offer.from + numExternalTokens };
    if (offer === undefined || span === undefined || span.to > offer.to || span.to % this.#step !== 0) {
      const most = offer === undefined ? 0 : offer.to - offer.from;
      throw errors.invalidArgument(
        'numExternalTokens',
        numExternalTokens,
        `whole blocks of the ${most} tokens offered`,
      );
    }
    const short = this.#needs?.groups.findIndex(
      ({ blockSize }, group) => (blockIds[group]?.length ?? 0) < span.to / blockSize,
    );
    if (short !== undefined && short >= 0) {
      const expected = `blocks for the ${span.to} tokens that are there after the load`;
      throw errors.invalidArgument(`blockIds[${short}]`, blockIds[short], expected);
    }
    own.load = { ...span, sent: false, ended: false };
    this.#loads.push(own);
    this.#stats.hitTokens += numExternalTokens;
  }

  buildConnectorMeta(output: SchedulerOutput): StoreStep {
    for (const id of output.preemptedRequestIds) this.#requests.get(id)?.reset();
    const loads = this.#takeLoads();
    const saves = this.#lastSaves;
    // A request that begins beside a synchronous load may share its blocks, and be wrong with them.
    const synchronous = loads.some((job) => !job.async);
    const compute = ({ requestId, numComputedTokens }: NewRequestData | CachedRequestData) =>
      this.#requests
        .get(requestId)
        ?.compute(numComputedTokens, numComputedTokens + (output.numScheduledTokens[requestId] ?? 0));
    for (const data of output.newRequests) {
      this.#requests.get(data.requestId)?.setBlocks(data.blockIds);
      compute(data);
      // None is ready: engines share a block from the step on that computes it, so it may have one not yet written.
      if (!synchronous) this.#save(data.requestId, 0, saves);
    }
    for (const data of output.cachedRequests) {
      this.#requests.get(data.requestId)?.addBlocks(data.newBlockIds);
      compute(data);
      this.#save(data.requestId, data.numComputedTokens, saves);
    }
    const work = { loads, saves, aborted: this.#aborted, cancelled: this.#cancelled, release: this.#release };
    this.#lastSaves = [];
    this.#aborted = [];
    this.#cancelled = [];
    this.#release = [];
    return work;
  }

  updateConnectorOutput({ finishedSending, finishedReceiving, invalidBlockIds }: ConnectorOutput): void {
    for (const id of finishedSending) this.#releasing.delete(id);
    for (const id of finishedReceiving) {
      const load = this.#requests.get(id)?.load;
      if (load) load.ended = true;
    }
    if (invalidBlockIds.length === 0) return;
    const invalid = new Set(invalidBlockIds);
    for (const own of this.#requests.values()) {
      own?.doubt();
      if (own === undefined || own.loadFailed) continue;
      own.failLoad(invalid);
      if (own.loadFailed) this.#stats.failedLoads++;
    }
  }

  requestFinished(request: KvRequest, blockIds: GroupBlocks): [boolean, KvTransferParams | null] {
    const id = request.requestId;
    const own = this.#requests.get(id);
    own?.lookup?.controller.abort();
    const keep = own !== undefined && this.#finish(own, id, blockIds);
    this.#requests.delete(id);
    return [keep, null];
  }

  hasPendingWork(): boolean {
    const queued = this.#loads.length + this.#lastSaves.length + this.#aborted.length + this.#cancelled.length;
    return queued + this.#release.length + this.#releasing.size > 0;
  }

  stats(): ConnectorStats {
    return { ...this.#stats };
  }

  async shutdown(): Promise<void> {
    for (const own of this.#requests.values()) own?.dropLookup();
    this.#requests.clear();
    this.#loads = [];
  }

  #attach(): void {
    this.#checked = performance.now();
    Promise.all(this.#claims.map((claim) => this.#options.attach(claim))).then((verdicts) => {
      this.#attached = verdicts.every(Boolean);
    });
  }

  /** What is known of a request; undefined where it cannot be known. */
  #track(request: KvRequest): StoreRequest | undefined {
    const id = request.requestId;
    if (this.#needs === undefined || this.#requests.has(id)) return this.#requests.get(id);
    const own = new StoreRequest(request, this.#needs.groups, this.#hash);
    const hashed = this.#hashable(own, () => own.hashes.first(Number.POSITIVE_INFINITY));
    this.#requests.set(id, hashed ? own : undefined);
    return this.#requests.get(id);
  }

  /** Runs what hashes a request's blocks. Extra keys or tokens may have no hash: then the request is left alone. */
  #hashable(own: StoreRequest, work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      this.#stats.unhashableRequests++;
      own.dropLookup();
      return false;
    }
  }

  #stale(lookup: Lookup, request: KvRequest, computed: number): boolean {
    if (lookup.tokens !== request.tokens.length || computed < lookup.computed) return true;
    if (lookup.answered === undefined) return false;
    // However slowly an engine asks, each answer serves once.
    const old = lookup.used && performance.now() - lookup.answered > this.#options.lookupTtlMs;
    lookup.used = true;
    return old;
  }

  #lookUp(own: StoreRequest, computed: number): void {
    const { store, tenant, lookupTimeoutMs } = this.#options;
    const needs = this.#needs as StoreNeeds;
    const { length } = own.request.tokens;
    const blocks = (Math.floor((length - 1) / this.#step) * this.#step) / this.#hash.blockSize;
    const lookup: Lookup = { tokens: length, computed, controller: new AbortController(), used: false };
    own.lookup = lookup;
    this.#stats.lookups++;
    this.#stats.lookedUpTokens += Math.max(0, blocks * this.#hash.blockSize - computed);
    const limits = { tenant, timeoutMs: lookupTimeoutMs, signal: lookup.controller.signal };
    const hashes = own.hashes.first(blocks);
    const { width } = own.hashes;
    this.#checkNeighbours(hashes.subarray(0, width), limits)
      .then(() => lookUp(hashes, width, computed, { store, needs, hashBlockSize: this.#hash.blockSize, ...limits }))
      .then(
        (presence) => {
          lookup.presence = presence;
        },
        (error) => {
          if (lookup.controller.signal.aborted) return;
          this.#stats.failedLookups++;
          this.#options.onError(error);
        },
      )
      .finally(() => {
        lookup.answered = performance.now();
      });
  }

  async #checkNeighbours(hash: Uint8Array, limits: LookupLimits): Promise<void> {
    const claim = this.#unchosen;
    if (claim === undefined || ++this.#neighbourChecks > NEIGHBOUR_CHECKS) return;
    try {
      await checkNeighbours(this.#options.store, claim, hash, limits);
    } catch (error) {
      if (error instanceof MooncakeError && error.code === 'ERR_NAMESPACE') {
        this.#attached = false;
        this.#options.refuse(claim, error);
      }
      throw error;
    }
  }

  #takeLoads(): LoadJob[] {
    const { loadAsync } = this.#options;
    const jobs: LoadJob[] = [];
    for (const own of this.#loads) {
      const presence = own.lookup?.presence;
      if (own.load === undefined || presence === undefined) continue;
      own.load.sent = true;
      jobs.push({ requestId: own.request.requestId, async: loadAsync, groups: own.loads(own.load, presence) });
    }
    this.#loads = [];
    return jobs;
  }

  get #saving(): boolean {
    return this.#engine.role !== 'consumer' && this.#attached === true;
  }

  /** Plans the saves of a request; the KV of its first `ready` tokens may be read before the step. */
  #save(id: string, ready: number, saves: SaveJob[]): void {
    const own = this.#requests.get(id);
    if (own === undefined || !this.#saving) return;
    const hashed = this.#hashable(own, () => {
      const jobs = own.saves(ready, own.computed);
      if (jobs.length > 0) own.saved = true;
      saves.push(...jobs);
    });
    if (!hashed && !own.saved) this.#requests.set(id, undefined);
  }

  /** What is left to do for a request that has ended; whether its blocks must be kept for it. */
  #finish(own: StoreRequest, id: string, blockIds: GroupBlocks): boolean {
    const { load } = own;
    if (load !== undefined && !load.ended && this.#options.loadAsync)
      (load.sent ? this.#aborted : this.#cancelled).push(id);
    this.#loads = this.#loads.filter((other) => other !== own);
    own.setBlocks(blockIds);
    this.#save(id, own.computed, this.#lastSaves);
    if (!own.saved || !own.hasBlocks) return false;
    this.#release.push(id);
    this.#releasing.add(id);
    return true;
  }
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
}
