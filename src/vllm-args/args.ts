/**
 * What one vLLM engine is started with: its `--kv-transfer-config`, environment and store file, and the commands of
 * mooncake-ts that it needs beside it.
 */
import type { LegacyConfig } from '../config/legacy.js';
import type { StoreConfig } from '../config/store.js';
import { formatName, parseName } from '../transfer/metadata/name.js';
import { type StoreFile, storeFile } from './store-file.js';
import {
  type ConnectorKind,
  type KvTransferConfig,
  type Role,
  type Setup,
  type TransferConfigOptions,
  transferConfig,
} from './transfer-config.js';

export interface ArgsOptions extends Omit<TransferConfigOptions, 'protocol' | 'deviceName'> {
  readonly store: StoreConfig;
  /** The file that it was read from; undefined: variables and flags said it. */
  readonly clusterFile?: string;
  /** A configuration of V0 that is to be said in today's form. */
  readonly legacy?: LegacyConfig;
  /** Keys of an old `--kv-transfer-config` that have no meaning any more. */
  readonly dropped?: readonly string[];
  /** Of every process that shares the store: block hashes begin with it. */
  readonly hashSeed: string;
  /** The address that other instances reach this engine by. */
  readonly host?: string;
  readonly bootstrapPort: number;
  /** Seconds for which a prefill keeps KV that no decode fetches. */
  readonly abortTimeout?: number;
  /** Where the store's file is to be. */
  readonly file: string;
}

export interface VllmArgs {
  readonly setup: Setup;
  readonly connector: ConnectorKind;
  readonly role: Role;
  readonly kvTransferConfig: KvTransferConfig;
  /** Of `vllm serve`, beside --kv-transfer-config. */
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly file?: { readonly path: string; readonly content: StoreFile };
  /** Commands that run beside the engine, the first one first. */
  readonly beside: readonly string[];
  readonly notices: readonly string[];
}

export function vllmArgs(options: ArgsOptions): VllmArgs {
  const { setup, role, connector, store } = options;
  const usesStore = setup === 'store' || setup === 'multi';
  const handsOver = setup !== 'store';
  const file = usesStore && connector === 'stock' ? { path: options.file, content: storeFile(store) } : undefined;
  return {
    setup,
    connector,
    role,
    kvTransferConfig: transferConfig({ ...options, protocol: store.protocol, deviceName: store.device_name }),
    flags: hasBrokenStatistics(options) ? ['--disable-log-stats'] : [],
    env: environment(options, handsOver, file?.path),
    ...(file && { file }),
    beside: beside(options, usesStore, handsOver),
    notices: notices(options),
  };
}

/**
 * vLLM 0.32's own MultiConnector ends the engine at the first figures of a MooncakeConnector: it has no Prometheus metrics for
 * it, and asserts that it has.
 */
const hasBrokenStatistics = ({ setup, connector }: ArgsOptions) => setup === 'multi' && connector === 'stock';

function environment(options: ArgsOptions, handsOver: boolean, file: string | undefined): Record<string, string> {
  const { hashSeed, role, bootstrapPort, abortTimeout, legacy } = options;
  const host = options.host ?? (legacy && ownHost(legacy, role));
  return {
    PYTHONHASHSEED: hashSeed,
    ...(file !== undefined && { MOONCAKE_CONFIG_PATH: file }),
    ...(host !== undefined && { VLLM_HOST_IP: host }),
    ...(handsOver && role !== 'kv_consumer' && { VLLM_MOONCAKE_BOOTSTRAP_PORT: `${bootstrapPort}` }),
    ...(handsOver && abortTimeout !== undefined && { VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT: `${abortTimeout}` }),
  };
}

const ownHost = (legacy: LegacyConfig, role: Role) => (role === 'kv_consumer' ? legacy.decode : legacy.prefill).host;

function beside(options: ArgsOptions, usesStore: boolean, handsOver: boolean): string[] {
  const { connector, store, bootstrapPort, legacy } = options;
  const commands: string[] = [];
  if (usesStore) {
    const { host, port } = parseName('master_server_address', store.master_server_address);
    commands.push(`mooncake-ts master --rpc_address ${host} --port ${port}`);
    const master = quote(store.master_server_address);
    if (store.global_segment_size === 0)
      commands.push(`mooncake-ts store --master_server_address ${master} --global_segment_size 4GB`);
  }
  if (connector === 'ours') commands.push(service(options, usesStore));
  if (handsOver) {
    const [prefill, decode] = legacy ? [legacy.prefill.host, legacy.decode.host] : ['PREFILL', 'DECODE'];
    const url = (host: string, port: number) => `http://${formatName({ host, port })}`;
    // The HTTP ports are vLLM's own --port; 8100 and 8200 are those of its guides.
    commands.push(`mooncake-ts proxy --prefill ${url(prefill, 8100)} ${bootstrapPort} --decode ${url(decode, 8200)}`);
  }
  return commands;
}

/** The service joins the cluster, for all engines of its host. */
function service({ store, clusterFile, service: socket }: ArgsOptions, usesStore: boolean): string {
  const words = ['mooncake-ts service'];
  if (!usesStore) words.push('--store 0');
  else if (clusterFile !== undefined) words.push(`--config ${quote(clusterFile)}`);
  else {
    const master = `MOONCAKE_MASTER=${quote(store.master_server_address)}`;
    words.unshift(master, `MOONCAKE_GLOBAL_SEGMENT_SIZE=${store.global_segment_size}`);
  }
  if (socket !== undefined) words.push(`--socket ${quote(socket)}`);
  return words.join(' ');
}

function notices(options: ArgsOptions): string[] {
  const { legacy, dropped = [], connector } = options;
  const lines: string[] = [];
  if (hasBrokenStatistics(options))
    lines.push("--disable-log-stats: with them vLLM 0.32's own MultiConnector fails at its first hand-over");
  if (legacy) {
    const { path, prefill, decode, metadata_server } = legacy;
    lines.push(
      `${path} is a configuration of vLLM's V0 integration, which vLLM no longer has: remove it, and start with what is printed here`,
      `prefill_url ${formatName(prefill)}, decode_url ${formatName(decode)}: the hosts are VLLM_HOST_IP now; engines choose their ports themselves`,
    );
    if (metadata_server)
      lines.push(`metadata_server ${metadata_server}: instances find each other through the proxy now`);
    if (connector === 'ours')
      lines.push(`protocol and device_name: the node service chooses (mooncake-ts doctor shows what it finds)`);
  }
  if (dropped.length > 0) lines.push(`${dropped.join(', ')}: without meaning today, left out`);
  return lines;
}

/** A word of a POSIX shell. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
