/** What a service says of itself: to `status`, to Prometheus. */
import type { ConnectorStats } from '../connector/api.js';
import type { ConnectionCounters } from './connection.js';
import type { Engine } from './engines.js';

export interface EngineStatus {
  readonly engineId: string;
  readonly model: string;
  readonly role: string;
  readonly connector: string;
  readonly generation: number;
  /** Its scheduler half knows all of its ranks. */
  readonly linked: boolean;
  readonly scheduler: { readonly pid: number; readonly requests: number; readonly stats: ConnectorStats } | null;
  readonly workers: readonly {
    readonly rank: number;
    readonly pid: number;
    /** Of the engine's memory, mapped. */
    readonly bytes: number;
    readonly stats: ConnectorStats;
  }[];
}

export interface ServiceStatus {
  readonly instance: string;
  readonly version: string;
  readonly socket: string;
  readonly pid: number;
  /** Since it was started. */
  readonly seconds: number;
  readonly connections: number;
  /** Connections of other users. */
  readonly refusedConnections: number;
  readonly descriptorsWaiting: number;
  readonly counters: Readonly<ConnectionCounters>;
  readonly engines: readonly EngineStatus[];
}

type Figures = Omit<ServiceStatus, 'pid' | 'engines' | 'counters'> & {
  readonly counters: ConnectionCounters;
  readonly engines: readonly Engine[];
};

export function statusOf({ engines, counters, ...figures }: Figures): ServiceStatus {
  return {
    ...figures,
    pid: process.pid,
    counters: { ...counters },
    engines: engines.map(({ spec, generation, linked, scheduler, workers }) => ({
      engineId: spec.engine.engineId,
      model: spec.engine.model,
      role: spec.engine.role,
      connector: spec.connector.kind,
      generation,
      linked,
      scheduler: scheduler ? { pid: scheduler.pid, requests: scheduler.requests, stats: scheduler.stats() } : null,
      workers: [...workers.values()].map((worker) => ({
        rank: worker.rank,
        pid: worker.pid,
        bytes: worker.bytes,
        stats: worker.stats(),
      })),
    })),
  };
}
