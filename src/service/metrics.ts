/** The service's figures in Prometheus' text format, served on a port of its own. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { listening } from '../listening.js';
import { MetricsText } from '../metrics/text.js';
import { formatName } from '../transfer/metadata/name.js';
import type { ServiceStatus } from './status.js';

export function metrics(status: ServiceStatus): string {
  const text = new MetricsText();
  const metric = text.metric.bind(text);
  const { counters, engines } = status;
  metric('mooncake_service_connections', 'gauge', 'Connections of engines', status.connections);
  metric(
    'mooncake_service_refused_connections_total',
    'counter',
    'Connections of other users',
    status.refusedConnections,
  );
  metric('mooncake_service_calls_total', 'counter', 'Calls of engines', counters.calls);
  metric('mooncake_service_failed_calls_total', 'counter', 'Calls answered with an error', counters.failedCalls);
  metric('mooncake_service_bad_frames_total', 'counter', 'Connections ended for what they sent', counters.badFrames);
  metric('mooncake_service_descriptors_waiting', 'gauge', 'Descriptors not yet asked for', status.descriptorsWaiting);
  metric('mooncake_service_engines', 'gauge', 'Engines attached', engines.length);
  metric(
    'mooncake_service_engine_linked',
    'gauge',
    "Whether an engine's scheduler knows all of its ranks",
    engines.map(({ engineId, linked }) => [{ engine: engineId }, linked ? 1 : 0] as const),
  );
  metric(
    'mooncake_service_engine_memory_bytes',
    'gauge',
    "Mapped bytes of an engine's rank",
    engines.flatMap(({ engineId, workers }) =>
      workers.map(({ rank, bytes }) => [{ engine: engineId, rank: `${rank}` }, bytes] as const),
    ),
  );
  const halves = engines.flatMap(({ engineId: engine, scheduler, workers }) => [
    ...Object.entries(scheduler?.stats ?? {}).map(
      ([counter, value]) => [{ engine, half: 'scheduler', counter }, value] as const,
    ),
    ...workers.flatMap(({ rank, stats }) =>
      Object.entries(stats).map(
        ([counter, value]) => [{ engine, half: 'worker', rank: `${rank}`, counter }, value] as const,
      ),
    ),
  ]);
  metric(
    'mooncake_service_connector',
    'gauge',
    "Counters of connectors' halves (docs/connectors.md), anew with each run",
    halves,
  );
  return text.toString();
}

export interface MetricsServer {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves `/metrics` and `/status`. Throws ERR_PEER where the port cannot be had. */
export async function serveMetrics(status: () => ServiceStatus, host: string, port: number): Promise<MetricsServer> {
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    const path = (request.url ?? '').split('?')[0];
    if (request.method === 'GET' && path === '/metrics') {
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(metrics(status()));
    } else if (request.method === 'GET' && path === '/status') {
      response.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(status())}\n`);
    } else {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('GET /metrics or GET /status\n');
    }
  });
  await listening(server, host, port);
  const { address, port: given } = server.address() as AddressInfo;
  return {
    url: `http://${formatName({ host: address, port: given })}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
