/** An existing `--kv-transfer-config`, of V0 or of today: what of it is still said, and what has no meaning any more. */
import { errors } from '../core/errors.js';
import type { Role, Setup } from './transfer-config.js';

export interface OldConfig {
  readonly setup: Setup;
  readonly role: Role;
  readonly workers?: number;
  readonly protocol?: string;
  readonly deviceName?: string;
  readonly dropped: readonly string[];
}

const ROLES: readonly Role[] = ['kv_producer', 'kv_consumer', 'kv_both'];
const CONNECTORS = ['MooncakeConnector', 'MooncakeStoreConnector', 'MultiConnector'];
/** What is translated; the rest is listed as dropped. */
const KEPT = [
  'kv_connector',
  'kv_role',
  'kv_connector_extra_config',
  'kv_connector_module_path',
  'kv_load_failure_policy',
];
const KEPT_EXTRA = ['num_workers', 'mooncake_protocol', 'device_name', 'connectors', 'mooncake_ts_service'];

/** @throws ERR_INVALID_ARGUMENT naming the key */
export function readOldConfig(argument: string, text: string): OldConfig {
  const config = object(argument, parse(argument, text));
  const connector = choice(`${argument}: kv_connector`, config.kv_connector, CONNECTORS);
  const role = choice(`${argument}: kv_role`, config.kv_role, ROLES) as Role;
  const extra = object(`${argument}: kv_connector_extra_config`, config.kv_connector_extra_config ?? {});
  const direct = connector === 'MultiConnector' ? childExtra(argument, extra) : extra;
  const workers = direct.num_workers;
  if (workers !== undefined && !(Number.isSafeInteger(workers) && (workers as number) > 0))
    throw errors.invalidArgument(`${argument}: num_workers`, workers, 'a whole number from 1');
  return {
    setup: setupOf(connector, role),
    role,
    workers: workers as number | undefined,
    protocol: optionalText(`${argument}: mooncake_protocol`, direct.mooncake_protocol),
    deviceName: optionalText(`${argument}: device_name`, direct.device_name),
    dropped: [
      ...Object.keys(config).filter((name) => !KEPT.includes(name)),
      ...Object.keys(extra).filter((name) => !KEPT_EXTRA.includes(name)),
    ],
  };
}

function setupOf(connector: string, role: Role): Setup {
  if (connector === 'MultiConnector') return 'multi';
  if (connector === 'MooncakeStoreConnector') return 'store';
  return role === 'kv_consumer' ? 'decode' : 'prefill';
}

/** The extra configuration of the child that hands over. */
function childExtra(argument: string, extra: Record<string, unknown>): Record<string, unknown> {
  const name = `${argument}: connectors`;
  if (!Array.isArray(extra.connectors)) throw errors.invalidArgument(name, extra.connectors, 'a list of connectors');
  for (const child of extra.connectors) {
    const { kv_connector, kv_connector_extra_config } = object(name, child);
    if (kv_connector === 'MooncakeConnector') return object(name, kv_connector_extra_config ?? {});
  }
  return {};
}

function parse(argument: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw errors.invalidArgument(argument, text, `JSON (${(error as Error).message})`);
  }
}

function object(argument: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw errors.invalidArgument(argument, value, 'an object');
  return value as Record<string, unknown>;
}

function choice<T extends string>(argument: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) throw errors.invalidArgument(argument, value, `one of ${choices.join(', ')}`);
  return value as T;
}

function optionalText(argument: string, value: unknown): string | undefined {
  if (value !== undefined && typeof value !== 'string') throw errors.invalidArgument(argument, value, 'a text');
  return value as string | undefined;
}
