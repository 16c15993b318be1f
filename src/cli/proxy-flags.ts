/** The flags of `mooncake-ts proxy`: vLLM's Mooncake proxy, its XpYd demo and Mooncake's older proxy, as options of ours. */
import { errors } from '../core/errors.js';
import { engineAddress } from '../proxy/address.js';
import { legacyEngines } from '../proxy/legacy.js';
import type { ProxiedEngine, XpydProxyOptions } from '../proxy/options.js';
import { whole } from './values.js';

export interface ProxyFlags {
  readonly prefill?: readonly string[];
  readonly decode?: readonly string[];
  readonly prefillerHost?: readonly string[];
  readonly prefillerHosts?: readonly string[];
  readonly prefillerPort?: readonly string[];
  readonly prefillerPorts?: readonly string[];
  readonly decoderHost?: readonly string[];
  readonly decoderHosts?: readonly string[];
  readonly decoderPort?: readonly string[];
  readonly decoderPorts?: readonly string[];
  readonly config?: string;
  readonly host: string;
  readonly port: number;
  readonly mode: string;
  readonly order: string;
  readonly scheduling: string;
  readonly model?: string;
  readonly whenPrefillFails: string;
  readonly retries: number;
  readonly timeout: number;
  readonly prefillTimeout: number;
  readonly idleTimeout: number;
  readonly healthInterval: number;
  readonly healthTimeout: number;
  readonly maxBody: number;
  readonly maxRequests: number;
}

/** @throws ERR_INVALID_ARGUMENT naming the flag */
export async function proxyOptions(flags: ProxyFlags, notice: (text: string) => void): Promise<XpydProxyOptions> {
  const prefill: (string | ProxiedEngine)[] = [
    ...prefillEngines(flags.prefill ?? []),
    ...pairs('prefiller', both(flags, 'prefillerHost'), both(flags, 'prefillerPort')),
  ];
  const decode: string[] = [
    ...(flags.decode ?? []),
    ...pairs('decoder', both(flags, 'decoderHost'), both(flags, 'decoderPort')),
  ];
  for (const url of flags.decode ?? []) engineAddress('--decode', url);
  const path = flags.config ?? (prefill.length + decode.length === 0 ? process.env.MOONCAKE_CONFIG_PATH : undefined);
  const legacy = path === undefined ? undefined : await legacyEngines(path);
  if (legacy !== undefined) {
    notice(legacy.notice);
    prefill.push(legacy.prefill);
    decode.push(legacy.decode);
  } else if (flags.config !== undefined) {
    throw errors.invalidArgument('--config', flags.config, 'a file with prefill_url and decode_url');
  }
  return {
    prefill,
    decode,
    host: flags.host,
    port: flags.port,
    mode: flags.mode as XpydProxyOptions['mode'],
    order: flags.order as XpydProxyOptions['order'],
    scheduling: flags.scheduling as XpydProxyOptions['scheduling'],
    model: flags.model,
    whenPrefillFails: flags.whenPrefillFails as XpydProxyOptions['whenPrefillFails'],
    retries: flags.retries,
    requestMs: flags.timeout * 1000,
    prefillMs: flags.prefillTimeout * 1000,
    idleMs: flags.idleTimeout * 1000,
    healthMs: flags.healthInterval * 1000,
    healthTimeoutMs: flags.healthTimeout * 1000,
    maxBodyBytes: flags.maxBody,
    maxRequests: flags.maxRequests,
    adminKey: process.env.ADMIN_API_KEY,
  };
}

const bootstrapPort = whole('--prefill: the bootstrap port', 1, 65_535);

/** `--prefill URL [bootstrap-port]`, several times, and `--prefill URL URL …`: a value that is a port belongs to the URL before. */
function prefillEngines(values: readonly string[]): ProxiedEngine[] {
  const engines: ProxiedEngine[] = [];
  let mayFollow = false;
  for (const value of values) {
    const isPort = /^\d+$/.test(value);
    if (isPort || value.toLowerCase() === 'none') {
      const before = engines.at(-1);
      if (before === undefined || !mayFollow) throw errors.invalidArgument('--prefill', value, 'URL [bootstrap-port]');
      before.bootstrapPort = isPort ? bootstrapPort(value) : 'none';
      mayFollow = false;
    } else {
      engineAddress('--prefill', value);
      engines.push({ url: value });
      mayFollow = true;
    }
  }
  return engines;
}

/** The older flags came in the singular and in the plural. */
function both(flags: ProxyFlags, name: 'prefillerHost' | 'prefillerPort' | 'decoderHost' | 'decoderPort'): string[] {
  return [...(flags[name] ?? []), ...(flags[`${name}s`] ?? [])];
}

/** Hosts and ports in pairs; a port alone is on this machine, as the older proxy had it. */
function pairs(name: string, hosts: readonly string[], ports: readonly string[]): string[] {
  const names = hosts.length === 0 ? ports.map(() => 'localhost') : hosts;
  if (names.length !== ports.length) {
    throw errors.invalidArgument(`--${name}-port`, ports.join(' '), `as many as --${name}-host, ${names.length}`);
  }
  return names.map((host, i) => `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${ports[i]}`);
}
