/**
 * The flags of `mooncake-ts store`: those of the stock store service and of the stock `mooncake_client` where they mean the same,
 * and what they say together with the configuration file and the variables, as options of a node.
 */
import { type GivenSettings, isStoreSetting, type StoreSetting, storeConfig } from '../config/store.js';
import { errors } from '../core/errors.js';
import { joinOptions } from '../store/joined/configuration.js';
import type { DoorOptions } from '../store/node/door.js';
import type { StoreNodeOptions } from '../store/node/node.js';
import { parseName } from '../transfer/metadata/name.js';

const UNSPECIFIED = ['0.0.0.0', '::'];

/** As commander gives them: by the names of their flags, dashes turned into capitals. */
export interface StoreFlags extends Readonly<Record<string, unknown>> {
  readonly config?: string;
  readonly define?: readonly string[];
  readonly port: number;
  readonly http_host: string;
  readonly bind?: string;
  readonly admin?: string;
  readonly serve?: string | true;
}

/** Flags of single settings, with the value they take. */
export const SETTING_FLAGS: readonly { flag: string; setting: StoreSetting; help: string; hidden?: true }[] = [
  {
    flag: 'master_server_address',
    setting: 'master_server_address',
    help: "the master's RPC, host:port (127.0.0.1:50051)",
  },
  {
    flag: 'metadata_server',
    setting: 'metadata_server',
    help: 'P2PHANDSHAKE, or http://host:port/metadata (P2PHANDSHAKE)',
  },
  { flag: 'host', setting: 'local_hostname', help: 'name or address that peers are told (127.0.0.1)' },
  { flag: 'local_hostname', setting: 'local_hostname', help: 'the same', hidden: true },
  {
    flag: 'global_segment_size',
    setting: 'global_segment_size',
    help: 'memory lent to the cluster, such as 4GB; 0: none (3200MB)',
  },
  {
    flag: 'local_buffer_size',
    setting: 'local_buffer_size',
    help: 'memory through which values of the REST API pass (16MB)',
  },
  { flag: 'protocol', setting: 'protocol', help: 'tcp; processes of this host share memory all the same (tcp)' },
  { flag: 'device_names', setting: 'device_name', help: 'accepted; tcp needs none', hidden: true },
  { flag: 'tenant_id', setting: 'tenant_id', help: "name space of the REST API's objects (default)" },
  { flag: 'enable_offload', setting: 'enable_ssd_offload', help: 'lend a disk too: -Dssd_offload_path=FOLDER (false)' },
];

/** @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED naming what was given, and where */
export async function nodeOptions(flags: StoreFlags): Promise<StoreNodeOptions & { master: string }> {
  const path = flags.config === undefined ? undefined : { from: '--config', value: flags.config };
  const options = joinOptions(await storeConfig(settingsOf(flags), path));
  if (UNSPECIFIED.includes(options.host)) {
    const expected = 'an address that peers can connect to (with --bind it may listen on another)';
    throw errors.invalidArgument('local_hostname', options.host, expected);
  }
  return {
    ...options,
    host: flags.bind ?? options.host,
    advertise: options.host,
    hostId: options.host,
    admin: flags.admin,
    httpHost: flags.http_host,
    httpPort: flags.port,
    serve: flags.serve === undefined ? undefined : doorOf(flags.serve),
  };
}

/** What was typed: a flag of its own wins over -D. */
function settingsOf(flags: StoreFlags): GivenSettings {
  const settings = new Map();
  for (const define of flags.define ?? []) {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(define) ?? [];
    if (name === undefined || !isStoreSetting(name)) {
      throw errors.invalidArgument('-D', define, 'name=value with a name of the configuration file');
    }
    settings.set(name, { from: `-D${name}`, value });
  }
  for (const { flag, setting } of SETTING_FLAGS) {
    const value = flags[flag];
    if (value !== undefined) settings.set(setting, { from: `--${flag}`, value });
  }
  return settings;
}

/** `--serve` alone: a port that is free. */
function doorOf(address: string | true): DoorOptions {
  return address === true ? {} : parseName('--serve', address);
}
