/** What TransferEngine.create takes, checked. */
import { boolean, integer, oneOf, options as optionsOf, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import type { Settings } from '../../native/addon.js';
import { type Metadata, openMetadata } from '../metadata/backend.js';
import { isHost } from '../metadata/name.js';
import { MoveDefaults } from '../move-options.js';
import type { RdmaOptions, TransferEngineOptions } from './api.js';

const TRANSPORTS = ['cuda', 'shm', 'rdma', 'tcp', 'file'];
const PROTOCOLS = ['tcp', 'rdma'] as const;
const LINKS = ['predicted', 'round-robin'] as const;
const MAX_STREAMS = 16;
const MAX_SPIN_US = 10_000;
/** Unspecified addresses: one can listen on them, but nobody can be told them. */
const UNSPECIFIED = /^(0\.0\.0\.0|::|::0|0:0:0:0:0:0:0:0)$/;

export interface EngineSettings {
  metadata: Metadata;
  host: string;
  port: number;
  advertise: string;
  transports?: readonly string[];
  streams: number;
  spinUs?: number;
  gpuShare?: number;
  protocol: 'tcp' | 'rdma';
  /** Settings of the accelerator's transport; undefined: nothing was said of it. */
  rdma?: Settings;
  defaults: MoveDefaults;
  native: boolean;
}

/** Throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED. */
export function engineSettings(options: TransferEngineOptions | undefined): EngineSettings {
  const given = optionsOf('options', options);
  const host = string('options.host', given.host ?? '127.0.0.1');
  if (!isHost(host)) throw errors.invalidArgument('options.host', host, 'a host name or an address');
  const advertise = string('options.advertise', given.advertise ?? host);
  if (!isHost(advertise)) throw errors.invalidArgument('options.advertise', advertise, 'a host name or an address');
  if (UNSPECIFIED.test(advertise)) {
    throw errors.invalidArgument(
      'options.advertise',
      given.advertise,
      `given, since peers cannot connect to ${advertise}`,
    );
  }
  return {
    metadata: openMetadata('options.metadata', string('options.metadata', given.metadata ?? 'p2p')),
    host,
    port: integer('options.port', given.port ?? 0, 0, 65_535),
    advertise,
    transports: given.transports && checkTransports(given.transports),
    streams: integer('options.streams', given.streams ?? 2, 1, MAX_STREAMS),
    spinUs: given.spinUs === undefined ? undefined : integer('options.spinUs', given.spinUs, 0, MAX_SPIN_US),
    gpuShare: given.gpuShare === undefined ? undefined : checkShare(given.gpuShare),
    protocol: oneOf('options.protocol', given.protocol ?? 'tcp', PROTOCOLS),
    rdma: given.rdma && rdmaSettings(given.rdma),
    defaults: new MoveDefaults(given),
    native: given.native === undefined || boolean('options.native', given.native),
  };
}

function checkShare(share: number): number {
  if (typeof share === 'number' && share >= 0 && share <= 1) return share;
  throw errors.invalidArgument('options.gpuShare', share, 'a number from 0 to 1');
}

function checkTransports(transports: readonly string[]): readonly string[] {
  const known = Array.isArray(transports) && transports.every((name) => TRANSPORTS.includes(name));
  if (!known) throw errors.invalidArgument('options.transports', transports, `an array of ${TRANSPORTS.join(', ')}`);
  return [...transports];
}

function rdmaSettings(options: RdmaOptions): Settings {
  const { devices, gidIndex, links, port, trafficClass } = optionsOf('options.rdma', options);
  const settings: Settings = {};
  if (devices !== undefined) {
    const names = Array.isArray(devices) ? devices.join(',') : devices;
    if (typeof names !== 'string' || !/^\s*[\w.-]+(\s*,\s*[\w.-]+)*\s*$/.test(names)) {
      throw errors.invalidArgument(
        'options.rdma.devices',
        devices,
        'names of NICs, separated by commas, or an array of them',
      );
    }
    settings.devices = names;
  }
  if (gidIndex !== undefined) settings.gidIndex = `${integer('options.rdma.gidIndex', gidIndex, 0, 255)}`;
  if (links !== undefined) settings.links = oneOf('options.rdma.links', links, LINKS);
  if (port !== undefined) settings.port = `${integer('options.rdma.port', port, 1, 255)}`;
  if (trafficClass !== undefined)
    settings.trafficClass = `${integer('options.rdma.trafficClass', trafficClass, 0, 255)}`;
  return settings;
}
