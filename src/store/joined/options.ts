/** What MooncakeStore.connect takes, checked. */
import { boolean, integer, options as optionsOf, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import { MAX_TIMEOUT_MS } from '../../transfer/limits.js';
import { isHost, parseName } from '../../transfer/metadata/name.js';
import type { Place } from '../../transfer/tcp/address.js';
import type { IntegrityOptions } from '../options.js';
import { type OwnSegment, parseSegments, type SegmentOptions } from '../segments.js';
import { parseSize } from '../size.js';
import { Admin } from './admin.js';
import { stockConfiguration } from './configuration.js';

export interface ConnectOptions extends IntegrityOptions {
  /** The master's RPC, `host:port`: stock or ours. Without it the stock configuration is read (MOONCAKE_CONFIG_PATH, …). */
  master?: string;
  /** Where segment descriptors are found: `p2p` (default; stock calls it P2PHANDSHAKE), or `http://host:port/metadata`. */
  metadata?: 'p2p' | (string & {});
  /** Interface on which peers reach this store's memory. Default 127.0.0.1. */
  host?: string;
  /** What peers are told instead of `host`. */
  advertise?: string;
  /** One port for handshakes and data. Default 0: one that is free. */
  port?: number;
  /** Memory lent to the cluster: bytes ("4GB" is 4 x 2^30), or segments one by one. Default: none. */
  segments?: number | string | readonly SegmentOptions[];
  /**
   * Memory through which values pass whose own memory is not registered with `store.transfer`: what may be on its way at once.
   * Default "16MB".
   */
  localBufferSize?: number | string;
  /**
   * Memory for objects read lately from other processes: a get that finds them there saves the transfer, not the master's
   * word for it. Bytes, or a size such as "1GB". Default: none.
   */
  hotCache?: number | string;
  /** Names the host, for `preferSameNode` and local-first allocation. Default "". */
  hostId?: string;
  /** The master's HTTP port, `host:port`, for `stats` and `segments`. Default: none. */
  admin?: string;
  /** `tcp`, the only one there is; peers of ours on this host are reached by shared memory all the same. */
  protocol?: 'tcp' | (string & {});
  /** As stock clients take it; of no meaning for `tcp`. */
  deviceName?: string;
  /** The name space of calls that name none. Default "default". */
  tenant?: string;
  /** false: TypeScript moves the bytes even where the accelerator is there. */
  native?: boolean;
  /** Deadline of calls that name none, in ms. Default 30,000. */
  timeoutMs?: number;
}

export interface ResolvedJoin {
  readonly master: Place;
  readonly metadata: string;
  readonly host: string;
  readonly advertise: string;
  readonly port: number;
  readonly segments: readonly OwnSegment[];
  readonly localBufferSize: number;
  readonly hotCache: number;
  readonly hostId: string;
  readonly admin: Admin | undefined;
  readonly protocol: string;
  readonly native: boolean | undefined;
  readonly timeoutMs: number;
}

/** The options with what the stock configuration says where no master is named; explicit options win. */
export async function withConfiguration<T extends ConnectOptions>(options: T | undefined): Promise<T> {
  const given = optionsOf('options', options);
  if (given.master !== undefined) return given;
  const said = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...(await stockConfiguration()), ...Object.fromEntries(said) } as T;
}

/** @throws ERR_INVALID_ARGUMENT naming the option, ERR_NOT_SUPPORTED */
export function resolveJoin(given: ConnectOptions): ResolvedJoin {
  string('deviceName', given.deviceName ?? '');
  const host = string('host', given.host ?? '127.0.0.1');
  if (!isHost(host)) throw errors.invalidArgument('host', host, 'a host name or an address');
  const protocol = string('protocol', given.protocol ?? 'tcp');
  if (protocol !== 'tcp') throw errors.notSupported(`protocol ${protocol}`, 'use "tcp"');
  return {
    master: parseName('master', string('master', given.master)),
    metadata: string('metadata', given.metadata ?? 'p2p'),
    host,
    advertise: string('advertise', given.advertise ?? host),
    port: integer('port', given.port ?? 0, 0, 65_535),
    segments: given.segments === undefined || given.segments === 0 ? [] : parseSegments(given.segments),
    localBufferSize: parseSize('localBufferSize', given.localBufferSize ?? 2 ** 24),
    hotCache: given.hotCache === undefined || given.hotCache === 0 ? 0 : parseSize('hotCache', given.hotCache),
    hostId: string('hostId', given.hostId ?? ''),
    admin: given.admin === undefined ? undefined : new Admin(parseName('admin', given.admin)),
    protocol,
    native: given.native === undefined ? undefined : boolean('native', given.native),
    timeoutMs: integer('timeoutMs', given.timeoutMs ?? 30_000, 1, MAX_TIMEOUT_MS),
  };
}
