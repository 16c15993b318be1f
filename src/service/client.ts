/**
 * A connector whose halves live in the node service of this host, for engines in Node: what the Python adapter is to vLLM
 * (docs/service.md has the protocol). The engine's process opens no network connection; its KV cache lies in memory that the
 * service maps.
 */
import type { EngineInfo, KvConnector, SchedulerConnector, WorkerConnector } from '../connector/api.js';
import { integer, options as optionsOf, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { loadAddon, whyNoAddon } from '../native/load.js';
import { keepInPlace } from '../transfer/engine/memory.js';
import { type Attached, Link, type LinkOptions } from './client-link.js';
import { ServiceScheduler } from './client-scheduler.js';
import { ServiceWorker } from './client-worker.js';
import { defaultSocket } from './paths.js';

/** A connector as the protocol names it: `store` and `mooncake` with the plain options of their classes, or several. */
export type ServiceConnectorSpec =
  | { readonly kind: 'store' | 'mooncake'; readonly [option: string]: unknown }
  | { readonly kind: 'multi'; readonly connectors: readonly ServiceConnectorSpec[] };

export interface ServiceConnectorOptions {
  /** The service's control socket. Default: MOONCAKE_TS_SERVICE, or where a service of this user listens. */
  socket?: string;
  connector: ServiceConnectorSpec;
  /** How long a call may take before the service counts as lost, in milliseconds. Default 5000. */
  timeoutMs?: number;
  /**
   * A service that is lost and still lives (it is stopped, or hangs) may touch the engine's memory. How long a step, and the
   * connector's end, wait for it to let go before they fail with ERR_TIMEOUT, in milliseconds. Default 60,000.
   */
  silenceMs?: number;
}

/**
 * Memory for a KV cache that a service can map, zeroed; it lives until the collector finds it.
 * @throws ERR_NOT_SUPPORTED without the accelerator, ERR_OUT_OF_MEMORY
 */
export function sharedMemory(bytes: number): Uint8Array {
  const loaded = loadAddon();
  if (loaded.addon === undefined) throw errors.notSupported('shared memory', whyNoAddon(loaded));
  integer('bytes', bytes, 1, Number.MAX_SAFE_INTEGER);
  try {
    const memory = new Uint8Array(loaded.addon.allocate(bytes));
    keepInPlace(memory);
    return memory;
  } catch {
    throw errors.outOfMemory('shared memory', bytes);
  }
}

export class ServiceConnector implements KvConnector {
  readonly name = 'ServiceConnector';
  readonly #link: LinkOptions;
  readonly #connector: ServiceConnectorSpec;

  /** Throws ERR_INVALID_ARGUMENT, naming the option. */
  constructor(options: ServiceConnectorOptions) {
    const given = optionsOf('options', options);
    const ms = (name: 'timeoutMs' | 'silenceMs', standard: number) =>
      integer(name, given[name] ?? standard, 1, 3_600_000);
    this.#link = {
      socket: string('socket', given.socket ?? defaultSocket()),
      timeoutMs: ms('timeoutMs', 5000),
      silenceMs: ms('silenceMs', 60_000),
    };
    this.#connector = optionsOf('connector', given.connector);
  }

  /** Throws what the service refuses: ERR_ENGINE, ERR_VERSION, … One that is not there is looked for again between steps. */
  createScheduler(engine: EngineInfo): SchedulerConnector {
    const attach = { engine, connector: this.#connector };
    const link = new Link(this.#link, (call) => call('scheduler.attach', attach) as Attached);
    link.open();
    return new ServiceScheduler(link);
  }

  /** Its `registerKvCaches` attaches; memory that is not `sharedMemory` is refused with ERR_NOT_SUPPORTED. */
  createWorker(engine: EngineInfo, rank: number): WorkerConnector {
    const attach = { engine, connector: this.#connector, rank };
    const link: Link = new Link(this.#link, (call, greeted) => {
      const attached = call('worker.attach', attach) as Attached;
      worker.register(call, attached.session, greeted);
      return attached;
    });
    const worker = new ServiceWorker(link);
    return worker;
  }
}
