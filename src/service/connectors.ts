/** Makes the connector that an engine asks for, of what the service has: a store, a transfer. */
import type { KvConnector } from '../connector/api.js';
import { MooncakeConnector, type MooncakeConnectorOptions } from '../connector/mooncake.js';
import { MultiConnector } from '../connector/multi.js';
import { MooncakeStoreConnector, type StoreConnectorOptions } from '../connector/store.js';
import { errors } from '../core/errors.js';
import type { ObjectStore } from '../store/api.js';
import type { Transfer } from '../transfer/transfer.js';
import type { Fields } from './arguments.js';
import type { ConnectorSpec } from './spec.js';

export interface Resources {
  /** Where engines share prefixes; undefined where the service has none. */
  readonly store: ObjectStore | undefined;
  /** How engines of other hosts are reached for hand-overs. */
  readonly transfer: Transfer;
}

/** The options that are plain data: what else an engine says is not for us. */
const STORE_OPTIONS = [
  'integrity',
  'prefix',
  'tenant',
  'loadAsync',
  'peerTensorParallelSizes',
  'put',
  'lookupTimeoutMs',
  'loadTimeoutMs',
  'saveTimeoutMs',
  'lookupTtlMs',
  'maxLoads',
  'maxSaves',
  'batchBytes',
  'asideBytes',
  'reportSaved',
] as const satisfies readonly (keyof StoreConnectorOptions)[];
const MOONCAKE_OPTIONS = [
  'mode',
  'verify',
  'abortTimeoutMs',
  'loadTimeoutMs',
  'maxConcurrentMoves',
] as const satisfies readonly (keyof MooncakeConnectorOptions)[];

export interface ConnectorListener {
  /** Hears why a lookup, a load or a save failed. */
  onError(error: unknown): void;
  /** Is told of each that shares prefixes. */
  onStore(connector: MooncakeStoreConnector): void;
}

/** Throws ERR_INVALID_ARGUMENT naming the option, ERR_NOT_SUPPORTED. */
export function makeConnector(spec: ConnectorSpec, resources: Resources, listener: ConnectorListener): KvConnector {
  const { store, transfer } = resources;
  const onError = (error: unknown) => listener.onError(error);
  switch (spec.kind) {
    case 'store': {
      if (store === undefined) {
        throw errors.notSupported('a store connector', 'this service has no store: start it with --store or --config');
      }
      const connector = new MooncakeStoreConnector({ ...pick(spec.options, STORE_OPTIONS), store, onError });
      listener.onStore(connector);
      return connector;
    }
    case 'mooncake': {
      return new MooncakeConnector({ ...pick(spec.options, MOONCAKE_OPTIONS), transfer, onLoadError: onError });
    }
    case 'multi':
      return new MultiConnector(spec.parts.map((part) => makeConnector(part, resources, listener)));
  }
}

/** Those that are given; nil is as good as nothing. */
function pick(options: Fields, names: readonly string[]): Fields {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = options[name];
      return value === undefined || value === null ? [] : [[name, value]];
    }),
  );
}
