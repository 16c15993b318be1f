/**
 * The configuration of a store client, under the names of Mooncake's files and variables (its MooncakeConfig): a file, or where
 * there is none variables of the environment; what a caller says himself wins over both. Sizes accept "4GB".
 */
import { MooncakeError, show } from '../core/errors.js';
import { parseSize } from '../store/size.js';
import { type ConfigValue, readConfig } from './file.js';

export interface StoreConfig {
  /** What peers are told; where it is no loopback address, also what is listened on. */
  readonly local_hostname: string;
  /** `P2PHANDSHAKE`, or the URL of a metadata server. */
  readonly metadata_server: string;
  readonly master_server_address: string;
  /** Bytes lent to the cluster. */
  readonly global_segment_size: number;
  /** Bytes of the client's own buffer; 0: as many as it likes. Stock's default is 1 GiB, which nothing here fills. */
  readonly local_buffer_size: number;
  readonly protocol: string;
  readonly device_name: string;
  readonly tenant_id: string;
  readonly enable_ssd_offload: boolean;
  readonly ssd_offload_path: string;
}

export type StoreSetting = keyof StoreConfig;

/** A value, and who gave it: "--host", "MOONCAKE_MASTER", "/etc/mooncake.json: protocol". */
export interface Given {
  readonly from: string;
  readonly value: ConfigValue;
}

export type GivenSettings = ReadonlyMap<StoreSetting, Given>;

type Parse<T> = (given: Given) => T;

interface Setting<T> {
  readonly variable: string;
  readonly fallback: T;
  readonly parse: Parse<T>;
}

function refuse({ from, value }: Given, expected: string): never {
  throw new MooncakeError('ERR_INVALID_ARGUMENT', `${from} must be ${expected}, got ${show(value)}`, {
    argument: from,
    value,
  });
}

const text: Parse<string> = (given) => (typeof given.value === 'boolean' ? refuse(given, 'a text') : `${given.value}`);
const filled: Parse<string> = (given) => text(given).trim() || refuse(given, 'a text that is not empty');

/** 0 is a size here: none. */
const bytes: Parse<number> = ({ from, value }) => {
  const digits = typeof value === 'string' && /^\d+$/.test(value.trim()) ? Number(value) : value;
  return digits === 0 ? 0 : parseSize(from, digits);
};

const truth: Parse<boolean> = (given) => {
  const { value } = given;
  if (typeof value === 'boolean') return value;
  if (/^(true|1|yes|on|enable)$/i.test(`${value}`)) return true;
  return /^(false|0|no|off|disable|)$/i.test(`${value}`) ? false : refuse(given, 'true or false');
};

const SETTINGS: { readonly [Name in StoreSetting]: Setting<StoreConfig[Name]> } = {
  local_hostname: { variable: 'MOONCAKE_LOCAL_HOSTNAME', fallback: '127.0.0.1', parse: filled },
  metadata_server: { variable: 'MOONCAKE_TE_META_DATA_SERVER', fallback: 'P2PHANDSHAKE', parse: filled },
  master_server_address: { variable: 'MOONCAKE_MASTER', fallback: '127.0.0.1:50051', parse: filled },
  // Stock's default: 3.125 GiB.
  global_segment_size: { variable: 'MOONCAKE_GLOBAL_SEGMENT_SIZE', fallback: 3_355_443_200, parse: bytes },
  local_buffer_size: { variable: 'MOONCAKE_LOCAL_BUFFER_SIZE', fallback: 2 ** 24, parse: bytes },
  protocol: { variable: 'MOONCAKE_PROTOCOL', fallback: 'tcp', parse: (given) => filled(given).toLowerCase() },
  device_name: { variable: 'MOONCAKE_DEVICE', fallback: '', parse: text },
  tenant_id: { variable: 'MOONCAKE_TENANT_ID', fallback: 'default', parse: filled },
  enable_ssd_offload: { variable: 'MOONCAKE_OFFLOAD_ENABLED', fallback: false, parse: truth },
  ssd_offload_path: { variable: 'MOONCAKE_OFFLOAD_FILE_STORAGE_PATH', fallback: '', parse: text },
};

export const isStoreSetting = (name: string): name is StoreSetting => Object.hasOwn(SETTINGS, name);

/** What every file must say: without it nobody meant to join. */
const REQUIRED = ['local_hostname', 'metadata_server', 'master_server_address'] as const;

/**
 * The configuration that the file at `path` gives (by default the one that MOONCAKE_CONFIG_PATH names), or without one the
 * variables of `environment`; `given` wins. Other names in a file are left to those who know them.
 * @throws ERR_INVALID_ARGUMENT naming the flag, the variable, or the file and the name in it
 */
export async function storeConfig(
  given: GivenSettings = new Map(),
  path?: { readonly from: string; readonly value: string },
  environment: NodeJS.ProcessEnv = process.env,
): Promise<StoreConfig> {
  const variable = environment.MOONCAKE_CONFIG_PATH;
  const file = path ?? (variable ? { from: 'MOONCAKE_CONFIG_PATH', value: variable } : undefined);
  const settings = new Map(file ? await fromFile(file.value, file.from) : fromVariables(environment));
  for (const [name, one] of given) settings.set(name, one);
  if (file) for (const name of REQUIRED) if (!settings.has(name)) missing(file.value, name);
  const read = <Name extends StoreSetting>(name: Name): StoreConfig[Name] => {
    const { fallback, parse } = SETTINGS[name];
    const one = settings.get(name);
    return one ? parse(one) : fallback;
  };
  return {
    local_hostname: read('local_hostname'),
    metadata_server: read('metadata_server'),
    master_server_address: read('master_server_address'),
    global_segment_size: read('global_segment_size'),
    local_buffer_size: read('local_buffer_size'),
    protocol: read('protocol'),
    device_name: read('device_name'),
    tenant_id: read('tenant_id'),
    enable_ssd_offload: read('enable_ssd_offload'),
    ssd_offload_path: read('ssd_offload_path'),
  };
}

async function fromFile(path: string, argument: string): Promise<GivenSettings> {
  const { values } = await readConfig(path, argument);
  const settings = new Map<StoreSetting, Given>();
  for (const [name, value] of values) {
    if (isStoreSetting(name)) settings.set(name, { from: `${path}: ${name}`, value });
  }
  return settings;
}

function fromVariables(environment: NodeJS.ProcessEnv): GivenSettings {
  const settings = new Map<StoreSetting, Given>();
  for (const name of Object.keys(SETTINGS) as StoreSetting[]) {
    const { variable } = SETTINGS[name];
    const value = environment[variable];
    if (value !== undefined) settings.set(name, { from: variable, value });
  }
  return settings;
}

function missing(path: string, name: string): never {
  throw new MooncakeError('ERR_INVALID_ARGUMENT', `${path} does not say ${name}`, { argument: `${path}: ${name}` });
}
