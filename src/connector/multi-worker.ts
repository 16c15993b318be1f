/**
 * The worker half of MultiConnector: every call goes to every connector's. Only one of them loads a request, so what is
 * received merges as it is; a request is sent when all connectors that keep its blocks have said so.
 */
import type { ConnectorMetadata, ConnectorStats, KvCaches, SavedBlocks, WorkerConnector } from './api.js';
import { forAll, mergeStats, type Part, settleAll } from './multi-parts.js';
import type { MultiMetadata } from './multi-scheduler.js';

export class MultiWorker implements WorkerConnector {
  readonly #parts: readonly Part<WorkerConnector>[];
  /** Connectors that still have to be done with a request's blocks, where there was more than one. */
  readonly #senders = new Map<string, number>();
  /** Reported by some connectors, but not yet handed on: another one's error must not lose it. */
  #finished: { sending: string[]; receiving: string[] } = { sending: [], receiving: [] };
  readonly #failedBlocks = new Set<number>();

  constructor(parts: readonly Part<WorkerConnector>[]) {
    this.#parts = parts;
  }

  registerKvCaches(caches: KvCaches): void {
    for (const { half } of this.#parts) half.registerKvCaches(caches);
  }

  getHandshakeMetadata(): unknown[] {
    return this.#parts.map(({ half }) => half.getHandshakeMetadata());
  }

  bindConnectorMetadata(metadata: ConnectorMetadata): void {
    const { parts, senders } = metadata as MultiMetadata;
    for (const [request, count] of senders) this.#senders.set(request, count);
    forAll(this.#parts, (half, index) => half.bindConnectorMetadata(parts[index]));
  }

  clearConnectorMetadata(): void {
    forAll(this.#parts, (half) => half.clearConnectorMetadata());
  }

  handlePreemptions(requestIds: readonly string[]): Promise<void> {
    return settleAll(this.#parts, (half) => half.handlePreemptions(requestIds));
  }

  startLoadKv(): void {
    forAll(this.#parts, (half) => half.startLoadKv());
  }

  waitForLayerLoad(layer: number): Promise<void> {
    return settleAll(this.#parts, (half) => half.waitForLayerLoad(layer));
  }

  saveKvLayer(layer: number): void {
    forAll(this.#parts, (half) => half.saveKvLayer(layer));
  }

  waitForSave(): Promise<void> {
    return settleAll(this.#parts, (half) => half.waitForSave());
  }

  takeSaved(): SavedBlocks[] {
    return this.#parts.flatMap(({ half }) => half.takeSaved?.() ?? []);
  }

  savesEnded(): Promise<void> {
    return settleAll(this.#parts, async (half) => half.savesEnded?.());
  }

  getFinished(finished: readonly string[]): { sending: string[]; receiving: string[] } {
    forAll(this.#parts, (half) => {
      const { sending, receiving } = half.getFinished(finished);
      this.#finished.receiving.push(...receiving);
      this.#finished.sending.push(...sending.filter((request) => this.#wasLast(request)));
    });
    const finishedNow = this.#finished;
    this.#finished = { sending: [], receiving: [] };
    return finishedNow;
  }

  getBlockIdsWithLoadErrors(): number[] {
    forAll(this.#parts, (half) => {
      for (const block of half.getBlockIdsWithLoadErrors()) this.#failedBlocks.add(block);
    });
    const failed = [...this.#failedBlocks];
    this.#failedBlocks.clear();
    return failed;
  }

  stats(): ConnectorStats {
    return mergeStats(this.#parts);
  }

  shutdown(): Promise<void> {
    return settleAll(this.#parts, (half) => half.shutdown());
  }

  #wasLast(request: string): boolean {
    const left = (this.#senders.get(request) ?? 1) - 1;
    if (left > 0) this.#senders.set(request, left);
    else this.#senders.delete(request);
    return left === 0;
  }
}
