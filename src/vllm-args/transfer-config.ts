/**
 * vLLM's `--kv-transfer-config` for its own Mooncake connectors and for ours, which have the same class names in a module of
 * their own. The keys are those of vLLM 0.32 (KVTransferConfig, and what each connector reads of its extra configuration).
 */
export type Setup = 'store' | 'prefill' | 'decode' | 'multi';
export type Role = 'kv_producer' | 'kv_consumer' | 'kv_both';
/** vLLM's connectors over the stock wheel, or those of mooncake-ts over its node service. */
export type ConnectorKind = 'stock' | 'ours';

/** The one that hands over from prefill to decode, and the one that shares. */
export type ConnectorPart = 'pd' | 'store';
export type Extra = Readonly<Record<string, unknown>>;

/** Of an existing configuration: fields of the whole, and keys of each connector's extra configuration. */
export interface Kept extends Readonly<Record<ConnectorPart, Extra>> {
  readonly fields: Extra;
}

export interface KvTransferConfig {
  readonly kv_connector: string;
  readonly kv_connector_module_path?: string;
  readonly kv_role: Role;
  readonly kv_load_failure_policy?: 'recompute';
  readonly kv_connector_extra_config?: Extra;
}

export interface TransferConfigOptions {
  readonly setup: Setup;
  readonly role: Role;
  readonly connector: ConnectorKind;
  /** Of the transfer engine between prefill and decode; the store's is in its file. */
  readonly protocol: string;
  /** NICs, with commas between them; empty: the engine chooses. */
  readonly deviceName?: string;
  /** Threads that send; vLLM's default is 10. */
  readonly workers?: number;
  /** Control socket of the node service; by default the one that both sides look for. */
  readonly service?: string;
  readonly kept?: Kept;
}

const MODULE = 'mooncake_ts_vllm';

/** The configuration of one engine. */
export function transferConfig(options: TransferConfigOptions): KvTransferConfig {
  const { setup, role, connector } = options;
  const whole = setup === 'multi' ? multi(options) : single(setup === 'store' ? 'store' : 'pd', options);
  const { kv_connector, kv_connector_extra_config } = whole;
  return {
    kv_connector,
    ...(connector === 'ours' && { kv_connector_module_path: MODULE }),
    kv_role: role,
    // vLLM's default ends a request whose KV could not be loaded with an empty answer; a producer loads nothing.
    ...(role !== 'kv_producer' && { kv_load_failure_policy: 'recompute' as const }),
    ...options.kept?.fields,
    ...(kv_connector_extra_config && { kv_connector_extra_config }),
  };
}

type Child = Pick<KvTransferConfig, 'kv_connector' | 'kv_connector_extra_config'>;

function single(kind: ConnectorPart, options: TransferConfigOptions, isChild = false): Child {
  const { connector, service, workers, protocol, deviceName, kept } = options;
  const extra: Record<string, unknown> = { ...kept?.[kind] };
  if (kind === 'pd' && workers !== undefined) extra.num_workers = workers;
  // Of ours the service has the NICs.
  if (kind === 'pd' && connector === 'stock') {
    extra.mooncake_protocol = protocol;
    if (deviceName) extra.device_name = deviceName;
  }
  if (connector === 'ours' && service !== undefined && !isChild) extra.mooncake_ts_service = service;
  return {
    kv_connector: kind === 'store' ? 'MooncakeStoreConnector' : 'MooncakeConnector',
    ...(Object.keys(extra).length > 0 && { kv_connector_extra_config: extra }),
  };
}

/** Prefill hands over to decode directly, and both share a store: what it finds first, the first connector loads. */
function multi(options: TransferConfigOptions): Child {
  const { role, connector, service } = options;
  const connectors = (['pd', 'store'] as const).map((kind) => {
    const { kv_connector, kv_connector_extra_config } = single(kind, options, true);
    return {
      kv_connector,
      ...(connector === 'ours' && { kv_connector_module_path: MODULE }),
      kv_role: role,
      ...(kv_connector_extra_config && { kv_connector_extra_config }),
    };
  });
  return {
    kv_connector: 'MultiConnector',
    kv_connector_extra_config: {
      ...(connector === 'ours' && service !== undefined && { mooncake_ts_service: service }),
      connectors,
    },
  };
}
