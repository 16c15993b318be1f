/** `mooncake-ts vllm-args`: what a vLLM engine is to be started with, as a script to paste or as JSON. */
import { type Command, Option } from 'commander';
import { readLegacy } from '../config/legacy.js';
import { type Given, type StoreSetting, storeConfig } from '../config/store.js';
import { errors } from '../core/errors.js';
import { quote, type VllmArgs, vllmArgs } from '../vllm-args/args.js';
import { readOldConfig } from '../vllm-args/old-config.js';
import type { ConnectorKind, Role, Setup } from '../vllm-args/transfer-config.js';
import { printable } from './printable.js';
import { whole } from './values.js';

const SETUPS: readonly Setup[] = ['store', 'prefill', 'decode', 'multi'];
const ROLES: Readonly<Record<string, Role>> = { prefill: 'kv_producer', decode: 'kv_consumer', both: 'kv_both' };

interface Typed {
  readonly connector: ConnectorKind;
  readonly role?: string;
  readonly from?: string;
  readonly config?: string;
  readonly file: string;
  readonly service?: string;
  readonly host?: string;
  readonly hashSeed: string;
  readonly numWorkers?: number;
  readonly bootstrapPort: number;
  readonly abortTimeout?: number;
  readonly protocol?: string;
  readonly deviceName?: string;
  readonly master?: string;
  readonly segmentSize?: string;
  readonly json?: true;
}

/** Flags that say what the store's configuration says too, and win over it. */
const SETTINGS: readonly (readonly [keyof Typed, string, StoreSetting])[] = [
  ['protocol', '--protocol', 'protocol'],
  ['deviceName', '--device-name', 'device_name'],
  ['master', '--master', 'master_server_address'],
  ['segmentSize', '--segment-size', 'global_segment_size'],
];

const HELP = `
  store     engines share a store: what one has computed every other loads
  prefill   computes prompts and hands their KV over to a decode instance, by a proxy
  decode    fetches the KV of its prompts from the prefill instance that the proxy has named
  multi     both: handed over directly, and shared (--role prefill, decode or both)

An existing configuration is said in today's form: the file of V0 (prefill_url, decode_url) by --config, an old
--kv-transfer-config by --from, which also says the setup.`;

export function addVllmArgs(program: Command): void {
  program
    .command('vllm-args')
    .summary('what a vLLM engine is started with: --kv-transfer-config, environment, files')
    .description(
      "Prints the arguments and the environment of a vLLM 0.32 engine, with vLLM's own Mooncake connectors or with those of " +
        'mooncake-ts, as a shell script to paste.',
    )
    .argument('[setup]', SETUPS.join(', '))
    .addOption(new Option('--connector <kind>', 'whose connectors').choices(['stock', 'ours']).default('ours'))
    .addOption(new Option('--role <role>', 'of store and multi (both)').choices(Object.keys(ROLES)))
    .option('--config <file>', 'the cluster, as for mooncake-ts store (MOONCAKE_CONFIG_PATH); or a file of V0')
    .option('--from <json>', 'an existing --kv-transfer-config')
    .option('--master <host:port>', "the store's master (127.0.0.1:50051)")
    .option('--segment-size <size>', 'stock store connector: memory that each rank lends, such as 4GB; 0: none')
    .option('--file <file>', 'stock store connector: where its file is to be', 'mooncake.json')
    .option('--protocol <name>', 'tcp or rdma (tcp)')
    .option('--device-name <list>', 'NICs, with commas between them')
    .option('--num-workers <n>', 'threads that send, 10 by default', whole('--num-workers', 1, 1024))
    .option(
      '--bootstrap-port <n>',
      'where the proxy asks a prefill instance for its engine id',
      whole('--bootstrap-port', 1, 65_535),
      8998,
    )
    .option(
      '--abort-timeout <seconds>',
      'how long a prefill keeps what no decode fetches (480)',
      whole('--abort-timeout', 1, 1_000_000),
    )
    .option('--host <address>', 'the address that other instances reach this one by (VLLM_HOST_IP)')
    .option('--hash-seed <text>', 'PYTHONHASHSEED, the same on all instances', '0')
    .option('--service <socket>', 'control socket of the node service (ours)')
    .option('--json', 'as one JSON line')
    .addHelpText('after', HELP)
    .action(async (setup: string | undefined, typed: Typed) => {
      const args = await resolve(setup, typed);
      for (const notice of args.notices) process.stderr.write(`notice: ${printable(notice)}\n`);
      process.stdout.write(typed.json ? `${JSON.stringify(args)}\n` : script(args));
    });
}

async function resolve(named: string | undefined, typed: Typed): Promise<VllmArgs> {
  const path = typed.config;
  const legacy = path === undefined ? undefined : await readLegacy(path, '--config');
  const old = typed.from === undefined ? undefined : readOldConfig('--from', typed.from);
  const setup = SETUPS.find((one) => one === named) ?? (named === undefined ? old?.setup : undefined);
  if (setup === undefined) throw errors.invalidArgument('setup', named, `one of ${SETUPS.join(', ')}, or --from`);
  const given = new Map<StoreSetting, Given>();
  if (legacy) {
    given.set('protocol', { from: `${path}: protocol`, value: legacy.protocol });
    given.set('device_name', { from: `${path}: device_name`, value: legacy.device_name });
  }
  if (old?.protocol !== undefined) given.set('protocol', { from: '--from: mooncake_protocol', value: old.protocol });
  if (old?.deviceName !== undefined) given.set('device_name', { from: '--from: device_name', value: old.deviceName });
  for (const [name, from, setting] of SETTINGS) {
    const value = typed[name];
    if (value !== undefined) given.set(setting, { from, value: value as string });
  }
  // A file of V0 says nothing of a store.
  const file = path === undefined || legacy ? undefined : { from: '--config', value: path };
  const store = await storeConfig(given, file, legacy ? {} : process.env);
  return vllmArgs({
    ...typed,
    setup,
    role: roleOf(setup, typed.role, old?.role),
    store,
    clusterFile: file?.value ?? (legacy ? undefined : process.env.MOONCAKE_CONFIG_PATH || undefined),
    legacy,
    kept: old?.kept,
    dropped: old?.dropped,
    workers: typed.numWorkers ?? old?.workers,
  });
}

function roleOf(setup: Setup, typed: string | undefined, old: Role | undefined): Role {
  const fixed = setup === 'prefill' || setup === 'decode' ? ROLES[setup] : undefined;
  const wanted = typed === undefined ? old : ROLES[typed];
  if (fixed === undefined) return wanted ?? 'kv_both';
  if (wanted === undefined || wanted === fixed || (wanted === 'kv_both' && typed === undefined)) return wanted ?? fixed;
  throw errors.invalidArgument(
    typed === undefined ? '--from: kv_role' : '--role',
    typed ?? old,
    `${setup}, or left out: the setup says it`,
  );
}

/**
 * A POSIX shell script; what has to run beside the engine is commented, as it runs once for many engines. Its own arguments go to
 * vLLM: what engines of one setup differ in, such as their ports.
 */
function script({ kvTransferConfig, flags, env, file, beside }: VllmArgs): string {
  const lines = beside.map((command) => `# beside it: ${command}`);
  if (file)
    lines.push(`cat > ${quote(file.path)} <<'EOF'`, ...JSON.stringify(file.content, null, 2).split('\n'), 'EOF');
  for (const [name, value] of Object.entries(env)) lines.push(`export ${name}=${quote(value)}`);
  const words = ['--kv-transfer-config', quote(JSON.stringify(kvTransferConfig)), ...flags];
  lines.push(`vllm serve "$MODEL" ${words.join(' ')} "$@"`);
  return `${lines.map(printable).join('\n')}\n`;
}
