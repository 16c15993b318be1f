/** What the proxy may be told, checked. */
import { integer, oneOf, options as optionsOf, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { engineAddress } from './address.js';
import type { Mode } from './fleet.js';
import type { InstanceOptions, Role } from './instance.js';
import { SCHEDULING, type Scheduling } from './scheduling.js';

export const MODES = ['auto', 'bootstrap', 'store', 'multi'] as const;
export const ORDERS = ['prefill-first', 'concurrent'] as const;

export interface ProxiedEngine {
  /** `http://host:port` or `host:port`. */
  url: string;
  /** Prefill engines: port of the bootstrap server on the same host; `none`: it has none. Default 8998, by the mode. */
  bootstrapPort?: number | 'none';
}

export interface XpydProxyOptions {
  prefill?: readonly (string | ProxiedEngine)[];
  decode?: readonly (string | ProxiedEngine)[];
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 8000; 0: one that is free. */
  port?: number;
  /**
   * `bootstrap`: KV goes from engine to engine (vLLM's MooncakeConnector); `store`: through the store both know
   * (MooncakeStoreConnector); `multi`: both (MultiConnector). Default `auto`: `bootstrap` for each prefill engine that has a
   * bootstrap server, `store` for others.
   */
  mode?: Mode;
  /** Whether the decode request is sent when the prefill has ended, the default, or at the same time. */
  order?: (typeof ORDERS)[number];
  /** Default round_robin. */
  scheduling?: Scheduling;
  /** The model served; requests for another are refused. Default: what the engines say. */
  model?: string;
  /** What is done where no prefill succeeds: `compute`, the default, leaves it to the decode engine; `refuse` answers 502 or 503. */
  whenPrefillFails?: 'compute' | 'refuse';
  /** Tries after the first, of prefill and decode together. Default 2. */
  retries?: number;
  /** Milliseconds a request may take. Default 3,600,000. */
  requestMs?: number;
  /** Milliseconds its prefill may take. Default 600,000. */
  prefillMs?: number;
  /** Milliseconds in which neither engine nor client moves, once the answer has begun. Default 120,000. */
  idleMs?: number;
  /** Milliseconds between health checks. Default 1,000. */
  healthMs?: number;
  /** Milliseconds that an engine has to answer one; two missed and it is down. Default 5,000. */
  healthTimeoutMs?: number;
  /** Bytes of one request body. Default 32 MiB. */
  maxBodyBytes?: number;
  /** Bytes of all request bodies under way. Default 1 GiB. */
  maxBufferedBytes?: number;
  /** Requests under way. Default 8,192. */
  maxRequests?: number;
  /** The key of `/instances/*`; without one they are refused. */
  adminKey?: string;
  /** Takes a line when an engine comes, goes or fails. */
  log?(line: string): void;
}

export interface ProxySettings {
  readonly mode: Mode;
  readonly concurrent: boolean;
  readonly scheduling: Scheduling;
  readonly model: string | undefined;
  readonly computeAlone: boolean;
  readonly retries: number;
  readonly requestMs: number;
  readonly prefillMs: number;
  readonly idleMs: number;
  readonly healthMs: number;
  readonly healthTimeoutMs: number;
  readonly maxBodyBytes: number;
  readonly maxBufferedBytes: number;
  readonly maxRequests: number;
  readonly adminKey: string | undefined;
  log(line: string): void;
}

/** vLLM's VLLM_MOONCAKE_BOOTSTRAP_PORT. */
export const BOOTSTRAP_PORT = 8998;
/** The longest that a timer can wait. */
const MAX_MS = 2 ** 31 - 1;

export function proxySettings(given: XpydProxyOptions): ProxySettings {
  const options = optionsOf('options', given);
  const ms = (name: keyof XpydProxyOptions, standard: number) =>
    integer(`options.${name}`, options[name] ?? standard, 1, MAX_MS);
  const count = (name: keyof XpydProxyOptions, standard: number, least: number) =>
    integer(`options.${name}`, options[name] ?? standard, least, Number.MAX_SAFE_INTEGER);
  const text = (name: 'model' | 'adminKey') =>
    options[name] === undefined ? undefined : string(`options.${name}`, options[name]);
  return {
    mode: oneOf('options.mode', options.mode ?? 'auto', MODES),
    concurrent: oneOf('options.order', options.order ?? 'prefill-first', ORDERS) === 'concurrent',
    scheduling: oneOf('options.scheduling', options.scheduling ?? 'round_robin', SCHEDULING),
    model: text('model'),
    computeAlone:
      oneOf('options.whenPrefillFails', options.whenPrefillFails ?? 'compute', ['compute', 'refuse']) === 'compute',
    retries: count('retries', 2, 0),
    requestMs: ms('requestMs', 3_600_000),
    prefillMs: ms('prefillMs', 600_000),
    idleMs: ms('idleMs', 120_000),
    healthMs: ms('healthMs', 1000),
    healthTimeoutMs: ms('healthTimeoutMs', 5000),
    maxBodyBytes: count('maxBodyBytes', 32 * 2 ** 20, 1),
    maxBufferedBytes: count('maxBufferedBytes', 2 ** 30, 1),
    maxRequests: count('maxRequests', 8192, 1),
    adminKey: text('adminKey') || undefined,
    log: options.log ?? (() => {}),
  };
}

/** An engine as it is to be added. */
export function instanceOptions(
  argument: string,
  role: Role,
  given: string | ProxiedEngine,
  mode: Mode,
): InstanceOptions {
  const { url, bootstrapPort } = typeof given === 'string' ? { url: given } : optionsOf(argument, given);
  const address = engineAddress(argument, url);
  if (role === 'decode' || mode === 'store' || bootstrapPort === 'none') {
    if (bootstrapPort === 'none' && role === 'prefill' && mode === 'bootstrap') {
      throw errors.invalidArgument(`${argument}.bootstrapPort`, bootstrapPort, 'a port: mode bootstrap needs one');
    }
    return { role, address };
  }
  const port = integer(`${argument}.bootstrapPort`, bootstrapPort ?? BOOTSTRAP_PORT, 1, 65_535);
  return { role, address, bootstrapPort: port, bootstrapOptional: mode === 'auto' && bootstrapPort === undefined };
}
