/**
 * What vLLM's MooncakeConnector serves beside a prefill engine, so that its routers work with ours: `GET /query` answers, by
 * data-parallel rank, the engine's id and the addresses of its ranks (MooncakeBootstrapServer of vLLM 0.32,
 * kv_connector/v1/mooncake/mooncake_utils.py). One more key says where engines of ours are reached.
 *
 *     {"0": {"engine_id": "…", "worker_addr": {"0": {"0": "tcp://…"}}, "mooncake_ts": {"address": "tcp://…"}}}
 */
import { createServer, type Server } from 'node:http';
import { integer } from '../core/check.js';
import { listening } from '../listening.js';
import type { ConnectorSpec } from './spec.js';

/** An engine, as a router asks for it. */
export interface BootstrapEntry {
  readonly engineId: string;
  readonly ranks: number;
  /** Whether its ranks are there: others are not told of. */
  readonly ready: () => boolean;
}

interface Port {
  readonly server: Server;
  readonly listening: Promise<unknown>;
  readonly entries: Set<BootstrapEntry>;
}

/** The port that the connector of a prefill engine is asked at; undefined where it says none. */
export function bootstrapPort({ options, parts }: ConnectorSpec): number | undefined {
  const own = options.bootstrapPort ?? undefined;
  if (own !== undefined) return integer('connector.bootstrapPort', own, 1, 65_535);
  return parts.map(bootstrapPort).find((port) => port !== undefined);
}

export class BootstrapServers {
  readonly #host: string;
  readonly #address: string;
  readonly #ports = new Map<number, Port>();

  /** `address`: of the transfer by which all engines here are reached. */
  constructor(host: string, address: string) {
    this.#host = host;
    this.#address = address;
  }

  /** Serves an engine until the returned function is called. The promise rejects with ERR_PEER where the port is another's. */
  add(port: number, entry: BootstrapEntry): { listening: Promise<unknown>; remove: () => void } {
    let known = this.#ports.get(port);
    if (known === undefined) this.#ports.set(port, (known = this.#open(port)));
    const { entries, server } = known;
    entries.add(entry);
    const remove = () => {
      entries.delete(entry);
      if (entries.size > 0) return;
      if (this.#ports.get(port) === known) this.#ports.delete(port);
      server.close();
      server.closeAllConnections();
    };
    return { listening: known.listening, remove };
  }

  #open(port: number): Port {
    const entries = new Set<BootstrapEntry>();
    const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
      const found = request.method === 'GET' && (request.url ?? '').split('?')[0] === '/query';
      response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
      response.end(JSON.stringify(found ? this.#query(entries) : { detail: 'Not Found' }));
    });
    return { server, listening: listening(server, this.#host, port), entries };
  }

  #query(entries: ReadonlySet<BootstrapEntry>): object {
    const ready = [...entries].filter((entry) => entry.ready());
    return Object.fromEntries(
      ready.map(({ engineId, ranks }, index) => {
        const addresses = Array.from({ length: ranks }, (_, rank) => [rank, { 0: this.#address }]);
        const worker_addr = Object.fromEntries(addresses);
        return [index, { engine_id: engineId, worker_addr, mooncake_ts: { address: this.#address } }];
      }),
    );
  }
}
