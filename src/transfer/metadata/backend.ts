/** Where engines find each other: the interface, and which one a setting names. */
import { errors } from '../../core/errors.js';
import type { Limits } from '../limits.js';
import { isAddress, type Place } from '../tcp/address.js';
import { EtcdStore } from './etcd.js';
import { HttpStore } from './http.js';
import { KeyedMetadata } from './keyed.js';
import { P2pMetadata } from './p2p.js';
import { RedisStore } from './redis.js';
import { withoutPassword } from './url.js';

const CHOICES = '"p2p", "http://host:port/metadata", "etcd://host:port" or "redis://host:port"';

export interface Metadata {
  /** Tells others of this engine: where it answers handshakes, and its descriptor as it is now. */
  publish(name: string, place: Place, descriptor: string): Promise<void>;
  /** Takes back what was published. */
  withdraw(name: string): Promise<void>;
  /** The descriptor of an engine, as text. Throws ERR_PEER where there is none. */
  find(name: string, limits: Limits): Promise<string>;
  /** Where that engine answers handshakes. */
  place(name: string, limits: Limits): Promise<Place>;
}

/**
 * Opens nothing yet. Throws ERR_INVALID_ARGUMENT, which shows no password, and ERR_NOT_SUPPORTED for stores of metadata that are
 * not served.
 */
export function openMetadata(argument: string, setting: string): Metadata {
  // The second is the stock engine's spelling.
  if (setting === 'p2p' || setting === 'P2PHANDSHAKE') return new P2pMetadata();
  const scheme = /^(\w+):\/\//.exec(setting)?.[1];
  switch (scheme) {
    case 'http':
    case 'https':
      if (URL.canParse(setting)) return new KeyedMetadata(new HttpStore(setting));
      break;
    case 'etcd':
      return new KeyedMetadata(new EtcdStore(argument, setting));
    case 'redis':
    case 'rediss':
      return new KeyedMetadata(new RedisStore(argument, setting));
    case 'k8s':
      throw errors.notSupported('metadata in k8s', `use ${CHOICES}`);
    case undefined:
      // As a stock engine takes an address without a scheme.
      if (isAddress(`tcp://${setting.split(/[,;]/)[0]}`)) return new KeyedMetadata(new EtcdStore(argument, setting));
  }
  throw errors.invalidArgument(argument, withoutPassword(setting), CHOICES);
}
