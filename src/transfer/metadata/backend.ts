/** Where engines find each other: the interface, and which one a setting names. */
import { errors } from '../../core/errors.js';
import type { Limits } from '../limits.js';
import type { Place } from '../tcp/address.js';
import { HttpMetadata } from './http.js';
import { P2pMetadata } from './p2p.js';

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

/** Throws ERR_INVALID_ARGUMENT and, for stores of metadata that are not served, ERR_NOT_SUPPORTED. */
export function openMetadata(argument: string, setting: string): Metadata {
  // The second is the stock engine's spelling.
  if (setting === 'p2p' || setting === 'P2PHANDSHAKE') return new P2pMetadata();
  const scheme = /^(\w+):\/\//.exec(setting)?.[1];
  if (scheme === 'http' && URL.canParse(setting)) return new HttpMetadata(setting);
  if (scheme === 'etcd' || scheme === 'redis' || scheme === 'k8s') {
    throw errors.notSupported(`metadata in ${scheme}`, 'use "p2p" or "http://host:port/metadata"');
  }
  throw errors.invalidArgument(argument, setting, '"p2p" or "http://host:port/metadata"');
}
