/**
 * The worker half of MultiConnector: every call goes to every connector's. Only one of them loads a request, so what is
 * received merges as it is; a request is sent when all connectors that keep its blocks have said so.
 */
import type { ConnectorMetadata, ConnectorStats, KvCaches, WorkerConnector } from './api.js';
import { mergeStats, type Part, shutdownAll } from './multi-parts.js';
import type { MultiMetadata } from './multi-scheduler.js';

export class MultiWorker implements WorkerConnector {
  readonly #parts: readonly Part<WorkerConnector>[];
  /** Connectors that still have to be done with a request's blocks, where there was more than one. */
  readonly #senders = new Map<string, number>();

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
    for (const [index, { half }] of this.#parts.entries()) half.bindConnectorMetadata(parts[index]);
  }

  clearConnectorMetadata(): void {
    for (const { half } of this.#parts) half.clearConnectorMetadata();
  }

  async handlePreemptions(requestIds: readonly string[]): Promise<void> {
    await Promise.all(this.#parts.map(({ half }) => half.handlePreemptions(requestIds)));
  }

  startLoadKv(): void {
    for (const { half } of this.#parts) half.startLoadKv();
  }

  async waitForLayerLoad(layer: number): Promise<void> {
    await Promise.all(this.#parts.map(({ half }) => half.waitForLayerLoad(layer)));
  }

  saveKvLayer(layer: number): void {
    for (const { half } of this.#parts) half.saveKvLayer(layer);
  }

  async waitForSave(): Promise<void> {
    await Promise.all(this.#parts.map(({ half }) => half.waitForSave()));
  }

  getFinished(finished: readonly string[]): { sending: string[]; receiving: string[] } {
    const sending: string[] = [];
    const receiving: string[] = [];
    for (const { half } of this.#parts) {
      const own = half.getFinished(finished);
      receiving.push(...own.receiving);
      sending.push(...own.sending.filter((request) => this.#wasLast(request)));
    }
    return { sending, receiving };
  }

  getBlockIdsWithLoadErrors(): number[] {
    return [...new Set(this.#parts.flatMap(({ half }) => half.getBlockIdsWithLoadErrors()))];
  }

  stats(): ConnectorStats {
    return mergeStats(this.#parts);
  }

  shutdown(): Promise<void> {
    return shutdownAll(this.#parts);
  }

  #wasLast(request: string): boolean {
    const left = (this.#senders.get(request) ?? 1) - 1;
    if (left > 0) this.#senders.set(request, left);
    else this.#senders.delete(request);
    return left === 0;
  }
}
