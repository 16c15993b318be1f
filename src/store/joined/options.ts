/** What MooncakeStore.connect takes, checked. */
import { boolean, integer, options as optionsOf, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import { MAX_TIMEOUT_MS } from '../../transfer/limits.js';
import { isHost, parseName } from '../../transfer/metadata/name.js';
import type { Place } from '../../transfer/tcp/address.js';
import type { IntegrityOptions } from '../options.js';
import { type OwnSegment, parseSegments, type SegmentOptions } from '../segments.js';
import { Admin } from './admin.js';

export interface ConnectOptions extends IntegrityOptions {
  /** The master's RPC, `host:port`: stock or ours. */
  master: string;
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
  /** Names the host, for `preferSameNode` and local-first allocation. Default "". */
  hostId?: string;
  /** The master's HTTP port, `host:port`, for `stats` and `segments`. Default: none. */
  admin?: string;
  /** `tcp`, the only one there is; peers of ours on this host are reached by shared memory all the same. */
  protocol?: 'tcp' | (string & {});
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
  readonly hostId: string;
  readonly admin: Admin | undefined;
  readonly protocol: string;
  readonly native: boolean | undefined;
  readonly timeoutMs: number;
}

/** @throws ERR_INVALID_ARGUMENT naming the option, ERR_NOT_SUPPORTED */
export function resolveJoin(options: ConnectOptions): ResolvedJoin {
  const given = optionsOf('options', options);
  const host = string('host', given.host ?? '127.0.0.1');
  if (!isHost(host)) throw errors.invalidArgument('host', host, 'a host name or an address');
  const protocol = string('protocol', given.protocol ?? 'tcp');
  if (protocol !== 'tcp') throw errors.notSupported(`protocol ${protocol}`, 'use "tcp"');
  return {
    master: parseName('master', given.master),
    metadata: string('metadata', given.metadata ?? 'p2p'),
    host,
    advertise: string('advertise', given.advertise ?? host),
    port: integer('port', given.port ?? 0, 0, 65_535),
    segments: given.segments === undefined || given.segments === 0 ? [] : parseSegments(given.segments),
    hostId: string('hostId', given.hostId ?? ''),
    admin: given.admin === undefined ? undefined : new Admin(parseName('admin', given.admin)),
    protocol,
    native: given.native === undefined ? undefined : boolean('native', given.native),
    timeoutMs: integer('timeoutMs', given.timeoutMs ?? 30_000, 1, MAX_TIMEOUT_MS),
  };
}
