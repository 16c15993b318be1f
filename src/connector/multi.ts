/**
 * MultiConnector: several connectors as one, in order of preference. A request is loaded by the first that offers tokens,
 * and saved by all; blocks are kept until every connector that asked for it is done with them. As vLLM's MultiConnector.
 */
import { errors } from '../core/errors.js';
import type { EngineInfo, KvConnector, SchedulerConnector, WorkerConnector } from './api.js';
import type { Part } from './multi-parts.js';
import { MultiScheduler } from './multi-scheduler.js';
import { MultiWorker } from './multi-worker.js';

export class MultiConnector implements KvConnector {
  readonly name: string;
  readonly #connectors: readonly KvConnector[];

  /** Throws ERR_INVALID_ARGUMENT without a connector. */
  constructor(connectors: readonly KvConnector[]) {
    if (!Array.isArray(connectors) || connectors.length === 0) {
      throw errors.invalidArgument('connectors', connectors, 'an array of at least one connector');
    }
    for (const [index, connector] of connectors.entries()) {
      if (typeof connector?.createScheduler !== 'function' || typeof connector.createWorker !== 'function') {
        throw errors.invalidArgument(`connectors[${index}]`, connector, 'a connector');
      }
    }
    this.#connectors = [...connectors];
    this.name = `MultiConnector(${this.#connectors.map(({ name }) => name).join(', ')})`;
  }

  createScheduler(engine: EngineInfo): SchedulerConnector {
    return new MultiScheduler(this.#parts((connector) => connector.createScheduler(engine)));
  }

  createWorker(engine: EngineInfo, rank: number): WorkerConnector {
    return new MultiWorker(this.#parts((connector) => connector.createWorker(engine, rank)));
  }

  /** A half of each, with the name under which its counters appear: numbered where several connectors share one. */
  #parts<T>(make: (connector: KvConnector) => T): Part<T>[] {
    const names = this.#connectors.map(({ name }) => name);
    return this.#connectors.map((connector, index) => ({
      name: names.filter((name) => name === connector.name).length > 1 ? `${connector.name}[${index}]` : connector.name,
      half: make(connector),
    }));
  }
}
