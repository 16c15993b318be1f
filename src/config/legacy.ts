/**
 * The `mooncake.json` of vLLM's V0 integration, which named one prefill and one decode instance and the metadata server where
 * they met. Existing deployments have it; it is read so that it can be said in today's form.
 */
import { errors } from '../core/errors.js';
import { parseName } from '../transfer/metadata/name.js';
import type { Place } from '../transfer/tcp/address.js';
import { type ConfigFile, readConfig, refused } from './file.js';

export interface LegacyConfig {
  readonly path: string;
  /** Where the transfer engines of both instances listened; their HTTP ports were given to vLLM itself. */
  readonly prefill: Place;
  readonly decode: Place;
  readonly metadata_server: string;
  /** etcd where the file says nothing. */
  readonly metadata_backend: string;
  readonly protocol: string;
  readonly device_name: string;
}

const NAMES = ['prefill_url', 'decode_url', 'metadata_server', 'metadata_backend', 'protocol', 'device_name'] as const;
const BACKENDS = ['etcd', 'redis', 'http'];

/** Of two instances on one host: V0 took the ports in between. */
const PORTS_APART = 50;
/** What V0 added for a decode instance of the same address. */
const SAME_ADDRESS = 100;

/**
 * @returns undefined where the file is none of V0: it names neither instance
 * @throws ERR_INVALID_ARGUMENT naming the file and the name in it
 */
export async function readLegacy(path: string, argument = 'path'): Promise<LegacyConfig | undefined> {
  const file = await readConfig(path, argument, (name) => (NAMES as readonly string[]).includes(name));
  if (!file.values.has('prefill_url') && !file.values.has('decode_url')) return undefined;
  const prefill = instance(file, 'prefill_url');
  const told = instance(file, 'decode_url');
  const isSame = told.host === prefill.host && told.port === prefill.port;
  const decode = isSame ? { ...told, port: told.port + SAME_ADDRESS } : told;
  if (decode.host === prefill.host && Math.abs(decode.port - prefill.port) < PORTS_APART) {
    throw refused(file, 'decode_url', `${PORTS_APART} ports or more from prefill_url on the same host`);
  }
  const backend = text(file, 'metadata_backend', 'etcd').toLowerCase();
  if (!BACKENDS.includes(backend)) throw refused(file, 'metadata_backend', `one of ${BACKENDS.join(', ')}`);
  return {
    path,
    prefill,
    decode,
    metadata_server: text(file, 'metadata_server', ''),
    metadata_backend: backend,
    protocol: text(file, 'protocol', 'tcp').toLowerCase(),
    device_name: text(file, 'device_name', ''),
  };
}

function instance(file: ConfigFile, name: 'prefill_url' | 'decode_url'): Place {
  const value = file.values.get(name);
  if (value === undefined) throw errors.invalidArgument(`${file.path}: ${name}`, value, 'host:port');
  return parseName(`${file.path}: ${name}`, value as string);
}

function text(file: ConfigFile, name: string, fallback: string): string {
  const value = file.values.get(name) ?? fallback;
  if (typeof value !== 'string') throw refused(file, name, 'a text');
  return value;
}
