/**
 * The stock client's configuration: the JSON file that MOONCAKE_CONFIG_PATH names, or the MOONCAKE_* variables where there is none.
 * Names and defaults are those of Mooncake's Python package (mooncake/mooncake_config.py); other names in the file are
 * passed over, as there.
 */
import { readFile } from 'node:fs/promises';
import { errors } from '../../core/errors.js';
import { parseName } from '../../transfer/metadata/name.js';
import type { ConnectOptions } from './options.js';

const MAX_BYTES = 2 ** 20;
/** 3.125 GiB. */
const GLOBAL_SEGMENT_BYTES = 3_355_443_200;

/** A value by its name in the file; undefined where it is not there. */
type Lookup = (name: string) => unknown;

/** The variable that says what the file says under a name. */
const VARIABLES: Readonly<Record<string, string>> = {
  local_hostname: 'MOONCAKE_LOCAL_HOSTNAME',
  metadata_server: 'MOONCAKE_TE_META_DATA_SERVER',
  global_segment_size: 'MOONCAKE_GLOBAL_SEGMENT_SIZE',
  local_buffer_size: 'MOONCAKE_LOCAL_BUFFER_SIZE',
  protocol: 'MOONCAKE_PROTOCOL',
  device_name: 'MOONCAKE_DEVICE',
  master_server_address: 'MOONCAKE_MASTER',
  tenant_id: 'MOONCAKE_TENANT_ID',
  enable_ssd_offload: 'MOONCAKE_OFFLOAD_ENABLED',
};

/**
 * Options of the stock configuration.
 * @throws ERR_INVALID_ARGUMENT naming the file or the variable, ERR_NOT_SUPPORTED
 */
export async function stockConfiguration(environment: NodeJS.ProcessEnv = process.env): Promise<ConnectOptions> {
  const path = environment.MOONCAKE_CONFIG_PATH;
  if (path === undefined && !environment.MOONCAKE_MASTER) {
    const expected = '"host:port", or MOONCAKE_CONFIG_PATH or MOONCAKE_MASTER set in the environment';
    throw errors.invalidArgument('master', undefined, expected);
  }
  if (path === undefined)
    return interpret(
      (name) => environment[VARIABLES[name]],
      (name) => VARIABLES[name],
    );
  const values = await readJson(path);
  return interpret(
    (name) => values[name],
    (name) => `${name} in ${path}`,
  );
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  let values: unknown;
  try {
    const text = await readFile(path, 'utf8');
    if (text.length > MAX_BYTES) throw new Error(`it has ${text.length} characters`);
    values = JSON.parse(text);
  } catch (error) {
    throw errors.invalidArgument('MOONCAKE_CONFIG_PATH', path, `a JSON file (${(error as Error).message})`);
  }
  if (typeof values === 'object' && values !== null && !Array.isArray(values)) return values as Record<string, unknown>;
  throw errors.invalidArgument('MOONCAKE_CONFIG_PATH', path, 'a file with a JSON object');
}

/** `source` says what an error calls a name. */
function interpret(value: Lookup, source: (name: string) => string): ConnectOptions {
  const text = (name: string, fallback?: string): string => {
    const given = value(name) ?? fallback;
    if (typeof given === 'string' && (given.trim() !== '' || fallback === '')) return given.trim();
    throw errors.invalidArgument(source(name), given, 'a string that is not empty');
  };
  const size = (name: string, fallback: number | undefined): number | string | undefined => {
    const given = value(name) ?? fallback;
    if (given === undefined || typeof given === 'number') return given;
    if (typeof given !== 'string') throw errors.invalidArgument(source(name), given, 'bytes, or a size such as "4GB"');
    return /^\d+$/.test(given.trim()) ? Number(given) : given;
  };
  if (/^(true|1|yes|on|enable)$/i.test(`${value('enable_ssd_offload') ?? ''}`)) {
    throw errors.notSupported(source('enable_ssd_offload'), 'this client has no disk tier');
  }
  const master = text('master_server_address');
  parseName(source('master_server_address'), master);
  return {
    master,
    metadata: text('metadata_server', 'P2PHANDSHAKE'),
    host: hostOf(source('local_hostname'), text('local_hostname', 'localhost')),
    segments: size('global_segment_size', GLOBAL_SEGMENT_BYTES),
    localBufferSize: size('local_buffer_size', undefined),
    protocol: text('protocol', 'tcp').toLowerCase(),
    deviceName: text('device_name', ''),
    tenant: text('tenant_id', 'default'),
  };
}

/** A stock hostname may have a port behind it, which is a label: engines choose their own. */
function hostOf(source: string, name: string): string {
  if (!/^\[|^[^:]*:\d+$/.test(name)) return name;
  const withPort = /^\[[^\]]*\]$/.test(name) ? `${name}:1` : name;
  return parseName(source, withPort).host;
}
