/** An existing `--kv-transfer-config`, of V0 or of today: what of it is still said, and what has no meaning any more. */
import { errors } from '../core/errors.js';
import type { ConnectorPart, Extra, Kept, Role, Setup } from './transfer-config.js';

export interface OldConfig {
  readonly setup: Setup;
  readonly role: Role;
  readonly workers?: number;
  readonly protocol?: string;
  readonly deviceName?: string;
  /** What vLLM reads today and this command has no flag for, as it was. */
  readonly kept: Kept;
  /** Names that vLLM does not read any more. */
  readonly dropped: readonly string[];
}

const ROLES: readonly Role[] = ['kv_producer', 'kv_consumer', 'kv_both'];
const CONNECTORS: Readonly<Record<string, ConnectorPart | undefined>> = {
  MooncakeConnector: 'pd',
  MooncakeStoreConnector: 'store',
  MultiConnector: undefined,
};
/** Said anew. */
const TRANSLATED = [
  'kv_connector',
  'kv_role',
  'kv_connector_extra_config',
  'kv_connector_module_path',
  'kv_load_failure_policy',
];
const TRANSLATED_EXTRA = ['num_workers', 'mooncake_protocol', 'device_name', 'connectors', 'mooncake_ts_service'];
/** The other fields of vLLM 0.32's KVTransferConfig. */
const TODAY = ['engine_id', 'kv_buffer_device', 'kv_port', 'enable_permute_local_kv'];

/** @throws ERR_INVALID_ARGUMENT naming the key */
export function readOldConfig(argument: string, text: string): OldConfig {
  const config = object(argument, parse(argument, text));
  const connector = choice(`${argument}: kv_connector`, config.kv_connector, Object.keys(CONNECTORS));
  const role = choice(`${argument}: kv_role`, config.kv_role, ROLES);
  const parts = partsOf(argument, connector, config.kv_connector_extra_config);
  const direct = parts.pd ?? {};
  const workers = direct.num_workers;
  if (workers !== undefined && !(Number.isSafeInteger(workers) && (workers as number) > 0))
    throw errors.invalidArgument(`${argument}: num_workers`, workers, 'a whole number from 1');
  const others = Object.keys(config).filter((name) => !TRANSLATED.includes(name));
  return {
    setup: setupOf(connector, role),
    role,
    workers: workers as number | undefined,
    protocol: optionalText(`${argument}: mooncake_protocol`, direct.mooncake_protocol),
    deviceName: optionalText(`${argument}: device_name`, direct.device_name),
    kept: {
      fields: pick(config, (name) => TODAY.includes(name)),
      pd: pick(direct, (name) => !TRANSLATED_EXTRA.includes(name)),
      store: pick(parts.store ?? {}, (name) => !TRANSLATED_EXTRA.includes(name)),
    },
    dropped: others.filter((name) => !TODAY.includes(name)),
  };
}

const pick = (from: Extra, wanted: (name: string) => boolean): Extra =>
  Object.fromEntries(Object.entries(from).filter(([name]) => wanted(name)));

function setupOf(connector: string, role: Role): Setup {
  if (connector === 'MultiConnector') return 'multi';
  if (connector === 'MooncakeStoreConnector') return 'store';
  return role === 'kv_consumer' ? 'decode' : 'prefill';
}

/** The extra configuration of each connector: of the one, or of the children of several. */
function partsOf(argument: string, connector: string, extra: unknown): Partial<Record<ConnectorPart, Extra>> {
  const own = object(`${argument}: kv_connector_extra_config`, extra ?? {});
  const part = CONNECTORS[connector];
  if (part !== undefined) return { [part]: own };
  const name = `${argument}: connectors`;
  if (!Array.isArray(own.connectors)) throw errors.invalidArgument(name, own.connectors, 'a list of connectors');
  const parts: Partial<Record<ConnectorPart, Extra>> = {};
  for (const child of own.connectors) {
    const { kv_connector, kv_connector_extra_config } = object(name, child);
    const which = CONNECTORS[choice(`${name}: kv_connector`, kv_connector, Object.keys(CONNECTORS).slice(0, 2))]!;
    parts[which] = object(`${name}: kv_connector_extra_config`, kv_connector_extra_config ?? {});
  }
  return parts;
}

function parse(argument: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw errors.invalidArgument(argument, text, `JSON (${(error as Error).message})`);
  }
}

function object(argument: string, value: unknown): Extra {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw errors.invalidArgument(argument, value, 'an object');
  return value as Extra;
}

function choice<T extends string>(argument: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) throw errors.invalidArgument(argument, value, `one of ${choices.join(', ')}`);
  return value as T;
}

function optionalText(argument: string, value: unknown): string | undefined {
  if (value !== undefined && typeof value !== 'string') throw errors.invalidArgument(argument, value, 'a text');
  return value as string | undefined;
}
