/** The stock client's configuration (src/config/store.ts) as options of a store that joins. */
import { type StoreConfig, storeConfig } from '../../config/store.js';
import { errors } from '../../core/errors.js';
import type { ConnectOptions } from './options.js';

/**
 * Options of the file that MOONCAKE_CONFIG_PATH names, or of the MOONCAKE_* variables.
 * @throws ERR_INVALID_ARGUMENT naming the variable, or the file and the name in it; ERR_NOT_SUPPORTED
 */
export async function stockConfiguration(environment: NodeJS.ProcessEnv = process.env): Promise<ConnectOptions> {
  if (!environment.MOONCAKE_CONFIG_PATH && !environment.MOONCAKE_MASTER) {
    const expected = '"host:port", or MOONCAKE_CONFIG_PATH or MOONCAKE_MASTER set in the environment';
    throw errors.invalidArgument('master', undefined, expected);
  }
  return joinOptions(await storeConfig(new Map(), undefined, environment));
}

/** Throws ERR_NOT_SUPPORTED. */
export function joinOptions(config: StoreConfig) {
  if (config.enable_ssd_offload) {
    throw errors.notSupported('enable_ssd_offload', 'this version keeps objects in memory alone');
  }
  return {
    master: config.master_server_address,
    metadata: config.metadata_server,
    // An engine listens on one address; peers may take the name for another.
    host: config.local_hostname === 'localhost' ? '127.0.0.1' : config.local_hostname,
    segments: config.global_segment_size,
    localBufferSize: config.local_buffer_size || undefined,
    protocol: config.protocol,
    deviceName: config.device_name,
    tenant: config.tenant_id,
  } satisfies ConnectOptions;
}
