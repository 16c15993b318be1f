/**
 * The scheduler half of MultiConnector. What the workers of each connector report goes to all of them merged; as several
 * may keep the blocks of one request, the workers are told how many have to be done before it counts as sent.
 */
import type {
  ConnectorMetadata,
  ConnectorOutput,
  ConnectorStats,
  GroupBlocks,
  KvRequest,
  KvTransferParams,
  SchedulerConnector,
  SchedulerOutput,
} from './api.js';
import { forAll, mergeStats, type Part, settleAll } from './multi-parts.js';

/** A step's work of every connector, in their order. */
export interface MultiMetadata {
  readonly parts: readonly ConnectorMetadata[];
  /** Requests whose blocks more than one connector keeps: how many. */
  readonly senders: readonly (readonly [request: string, count: number])[];
}

export class MultiScheduler implements SchedulerConnector {
  readonly #parts: readonly Part<SchedulerConnector>[];
  /** Who loads a request: position of the connector. */
  readonly #loaders = new Map<string, number>();
  #senders: [string, number][] = [];

  constructor(parts: readonly Part<SchedulerConnector>[]) {
    this.#parts = parts;
  }

  onNewRequest(request: KvRequest): void {
    for (const { half } of this.#parts) half.onNewRequest(request);
  }

  getNumNewMatchedTokens(request: KvRequest, numComputedTokens: number): [tokens: number | null, async: boolean] {
    this.#loaders.delete(request.requestId);
    let offer: [number | null, boolean] = [0, false];
    // All are asked, as some find out in the background what they are asked for; the first offer stands.
    for (const [index, { half }] of this.#parts.entries()) {
      const answer = half.getNumNewMatchedTokens(request, numComputedTokens);
      if (offer[0] !== 0) continue;
      offer = answer;
      if (answer[0] !== null && answer[0] > 0) this.#loaders.set(request.requestId, index);
    }
    return offer;
  }

  updateStateAfterAlloc(request: KvRequest, blockIds: GroupBlocks, numExternalTokens: number): void {
    const loader = this.#loaders.get(request.requestId);
    for (const [index, { half }] of this.#parts.entries()) {
      half.updateStateAfterAlloc(request, blockIds, index === loader ? numExternalTokens : 0);
    }
  }

  buildConnectorMeta(output: SchedulerOutput): MultiMetadata {
    const parts = this.#parts.map(({ half }) => half.buildConnectorMeta(output));
    const senders = this.#senders;
    this.#senders = [];
    return { parts, senders };
  }

  updateConnectorOutput(output: ConnectorOutput): void {
    forAll(this.#parts, (half) => half.updateConnectorOutput(output));
  }

  requestFinished(request: KvRequest, blockIds: GroupBlocks): [delayFree: boolean, params: KvTransferParams | null] {
    this.#loaders.delete(request.requestId);
    let senders = 0;
    let params: KvTransferParams | null = null;
    for (const { half } of this.#parts) {
      const [delayFree, own] = half.requestFinished(request, blockIds);
      if (delayFree) senders++;
      params ??= own;
    }
    if (senders > 1) this.#senders.push([request.requestId, senders]);
    return [senders > 0, params];
  }

  hasPendingWork(): boolean {
    return this.#senders.length > 0 || this.#parts.some(({ half }) => half.hasPendingWork());
  }

  setHandshakeMetadata(metadata: readonly unknown[]): void {
    // A rank that has nothing to say may be a null on its way here.
    const of = (rank: unknown, index: number): unknown => (Array.isArray(rank) ? (rank[index] ?? null) : null);
    forAll(this.#parts, (half, index) => half.setHandshakeMetadata(metadata.map((rank) => of(rank, index))));
  }

  stats(): ConnectorStats {
    return mergeStats(this.#parts);
  }

  shutdown(): Promise<void> {
    return settleAll(this.#parts, (half) => half.shutdown());
  }
}
