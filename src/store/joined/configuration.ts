/** The stock client's configuration (src/config/store.ts) as options of a store that joins. */
import { statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type StoreConfig, storeConfig } from '../../config/store.js';
import { errors } from '../../core/errors.js';
import type { DiskLenderOptions } from '../disk/lender.js';
import { parseSize } from '../size.js';
import type { ConnectOptions } from './options.js';

/** What a stock client keeps on its disk at most where nobody says more: 2 TiB (observed of wheel 0.3.13.post1). */
const DISK_BYTES = 2 ** 41;

/**
 * Options of the file that MOONCAKE_CONFIG_PATH names, or of the MOONCAKE_* variables.
 * @throws ERR_INVALID_ARGUMENT naming the variable, or the file and the name in it
 */
export async function stockConfiguration(environment: NodeJS.ProcessEnv = process.env): Promise<ConnectOptions> {
  if (!environment.MOONCAKE_CONFIG_PATH && !environment.MOONCAKE_MASTER) {
    const expected = '"host:port", or MOONCAKE_CONFIG_PATH or MOONCAKE_MASTER set in the environment';
    throw errors.invalidArgument('master', undefined, expected);
  }
  return joinOptions(await storeConfig(new Map(), undefined, environment), environment);
}

/** Throws ERR_INVALID_ARGUMENT. */
export function joinOptions(config: StoreConfig, environment: NodeJS.ProcessEnv = process.env) {
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
    disk: config.enable_ssd_offload ? diskOptions(config.ssd_offload_path, environment) : undefined,
  } satisfies ConnectOptions;
}

/** A disk under the names of stock's variables; what its file system does not have is not lent. */
function diskOptions(folder: string, environment: NodeJS.ProcessEnv): DiskLenderOptions {
  if (folder === '') {
    const argument = 'ssd_offload_path (MOONCAKE_OFFLOAD_FILE_STORAGE_PATH)';
    throw errors.invalidArgument(argument, folder, 'a folder, as enable_ssd_offload is set');
  }
  const said = (name: string, scale = 1) => {
    const value = environment[name];
    if (!value) return undefined;
    return scale * parseSize(name, /^\d+$/.test(value) ? Number(value) : value);
  };
  const limit = said('MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES') ?? DISK_BYTES;
  return {
    folder,
    capacityBytes: Math.min(limit, fileSystemBytes(resolve(folder))),
    bufferBytes: said('MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES'),
    heartbeatMs: said('MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS', 1000),
  };
}

/** Of the file system that a folder is in, or will be. */
function fileSystemBytes(folder: string): number {
  try {
    const { blocks, bsize } = statfsSync(folder);
    return blocks * bsize;
  } catch {
    const parent = dirname(folder);
    return parent === folder ? Number.POSITIVE_INFINITY : fileSystemBytes(parent);
  }
}
