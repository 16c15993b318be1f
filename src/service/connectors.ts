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
] as const satisfies readonly (keyof StoreConnectorOptions)[];
const MOONCAKE_OPTIONS = [
  'mode',
  'verify',
  'abortTimeoutMs',
  'loadTimeoutMs',
  'maxConcurrentMoves',
] as const satisfies readonly (keyof MooncakeConnectorOptions)[];

/** `onError` hears why a lookup, a load or a save failed. Throws ERR_INVALID_ARGUMENT naming the option, ERR_NOT_SUPPORTED. */
export function makeConnector(
  spec: ConnectorSpec,
  resources: Resources,
  onError: (error: unknown) => void,
): KvConnector {
  const { store, transfer } = resources;
  switch (spec.kind) {
    case 'store': {
      if (store === undefined) {
        throw errors.notSupported('a store connector', 'this service has no store: start it with --store or --config');
      }
      return new MooncakeStoreConnector({ ...pick(spec.options, STORE_OPTIONS), store, onError });
    }
    case 'mooncake': {
      return new MooncakeConnector({ ...pick(spec.options, MOONCAKE_OPTIONS), transfer, onLoadError: onError });
    }
    case 'multi':
      return new MultiConnector(spec.parts.map((part) => makeConnector(part, resources, onError)));
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
