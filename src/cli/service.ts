/** `mooncake-ts service`: the process of a host to which its inference engines attach. */
import type { Command } from 'commander';
import { storeConfig } from '../config/store.js';
import { errors } from '../core/errors.js';
import { serveMetrics } from '../service/metrics.js';
import { defaultSocket } from '../service/paths.js';
import { NodeService } from '../service/service.js';
import { joinOptions } from '../store/joined/configuration.js';
import { formatSize, parseSize } from '../store/size.js';
import { MooncakeStore } from '../store/store.js';
import { TcpTransfer } from '../transfer/tcp/transfer.js';
import { EventLog } from './event-log.js';
import { interruptible } from './interrupt.js';
import { printable } from './printable.js';
import { port } from './values.js';

interface Typed {
  readonly socket?: string;
  readonly store?: string;
  readonly populate?: true;
  readonly config?: string;
  readonly host: string;
  readonly advertise?: string;
  readonly port: number;
  readonly metricsPort?: number;
  readonly logLevel: string;
  readonly json?: true;
}

const DEFAULT_STORE = '4GB';

export function addService(program: Command): void {
  program
    .command('service')
    .summary('the node service: inference engines of this host attach to it')
    .description(
      'One process per host, to which inference engines attach by a Unix socket: it holds their connectors, the store, network ' +
        'connections and memory registrations, so that an engine loads no compiled code of ours and survives its restarts. The ' +
        'store is one of its own (--store), or joins a Mooncake cluster (--config, or MOONCAKE_CONFIG_PATH, or MOONCAKE_MASTER).',
    )
    .option('--socket <path>', `the socket (MOONCAKE_TS_SERVICE, or ${defaultSocket({})} and the like)`)
    .option('--store <size>', `memory of a store of its own, such as ${DEFAULT_STORE}; 0: none (${DEFAULT_STORE})`)
    .option('--populate', 'take the memory of the store at once (0.5 s a GB), so that no save has to')
    .option('--config <file>', 'join the cluster that a configuration file of Mooncake names, JSON or YAML')
    .option('--host <address>', 'address on which other hosts reach this one for hand-overs', '127.0.0.1')
    .option('--advertise <name>', 'what other hosts are told instead of --host')
    .option('--port <n>', 'its port, 0 for any', port('--port'), 0)
    .option('--metrics-port <n>', 'Prometheus metrics on 127.0.0.1, 0 for any port', port('--metrics-port'))
    .option('--log-level <level>', 'error, warn, info or debug', 'info')
    .option('--json', 'events and addresses as JSON lines')
    .action((typed: Typed) => interruptible((signal) => serve(typed, signal)));
}

async function serve(typed: Typed, signal: AbortSignal): Promise<void> {
  const log = new EventLog({ json: typed.json, level: typed.logLevel });
  const opened: { close(): Promise<unknown> }[] = [];
  try {
    const { host, advertise } = typed;
    const transfer = await TcpTransfer.listen({ host, port: typed.port, advertise, native: true });
    opened.push(transfer);
    const [store, stored] = await openStore(typed);
    if (store !== undefined) opened.push(store);
    const service = await NodeService.start({
      socket: typed.socket,
      store,
      transfer,
      bootstrapHost: host,
      onEvent: (event) => log.event(levelOf(event.what), event, `engine ${event.engine} ${event.what}: ${event.text}`),
      onError: (error) => {
        const text = error instanceof Error ? error.message : String(error);
        const event = { what: 'error', text };
        log.event('warn', event, text);
      },
    });
    opened.push(service);
    const metrics =
      typed.metricsPort === undefined
        ? undefined
        : await serveMetrics(() => service.status(), '127.0.0.1', typed.metricsPort);
    if (metrics !== undefined) opened.push(metrics);
    const { socket, instance } = service;
    const listening = {
      what: 'listening',
      socket,
      instance,
      transfer: transfer.address,
      store: stored,
      metrics: metrics?.url,
    };
    log.say(
      listening,
      `service: engines attach at ${socket}; ${stored}; hand-overs at ${transfer.address}` +
        (metrics === undefined ? '' : `; metrics on ${metrics.url}/metrics`),
    );
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  } finally {
    // Engines first: what they still move goes through the others.
    for (const one of opened.reverse()) await one.close();
    log.close();
  }
}

/** The store that engines share, and what it is for people. */
async function openStore({
  store,
  populate,
  config,
}: Typed): Promise<[store: MooncakeStore | undefined, what: string]> {
  const { MOONCAKE_CONFIG_PATH: path, MOONCAKE_MASTER: master } = process.env;
  if (config !== undefined || (store === undefined && (path || master))) {
    if (store !== undefined) throw errors.invalidArgument('--store', store, 'left out where --config is given');
    const file = config === undefined ? undefined : { from: '--config', value: config };
    const options = joinOptions(await storeConfig(new Map(), file));
    return [await MooncakeStore.connect(options), `store of the cluster at ${printable(options.master)}`];
  }
  if (store === '0') return [undefined, 'no store'];
  const bytes = parseSize('--store', store ?? DEFAULT_STORE);
  return [new MooncakeStore({ segments: bytes, populate }), `a store of ${formatSize(bytes)}`];
}

const levelOf = (what: string) => (what === 'failed' || what === 'refused' ? 'warn' : 'info');
