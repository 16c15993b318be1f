/**
 * The file that MOONCAKE_CONFIG_PATH names for vLLM's own store connector. Of vLLM 0.32 it reads these names; its defaults
 * are RDMA and 4 GiB each, so all of them are said. An engine that lends nothing must say so by its mode.
 */
import type { StoreConfig } from '../config/store.js';

export interface StoreFile {
  readonly metadata_server: string;
  readonly master_server_address: string;
  readonly protocol: string;
  readonly device_name: string;
  readonly mode: 'embedded' | 'standalone-store';
  /** Bytes that each rank lends. */
  readonly global_segment_size: number;
  /** Bytes of each rank's own buffer. */
  readonly local_buffer_size: number;
  readonly local_hostname: string;
  readonly tenant_id?: string;
}

/** vLLM takes no buffer of no bytes; what it moves lies in registered memory and passes through none. */
const LEAST_BUFFER = 2 ** 24;

export function storeFile(config: StoreConfig): StoreFile {
  const { global_segment_size, local_buffer_size, tenant_id } = config;
  return {
    metadata_server: config.metadata_server,
    master_server_address: config.master_server_address,
    protocol: config.protocol,
    device_name: config.device_name,
    mode: global_segment_size === 0 ? 'standalone-store' : 'embedded',
    global_segment_size,
    local_buffer_size: Math.max(local_buffer_size, LEAST_BUFFER),
    local_hostname: config.local_hostname,
    ...(tenant_id !== 'default' && { tenant_id }),
  };
}
