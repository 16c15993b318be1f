/**
 * The `mooncake.json` of Mooncake's vLLM V0 integration, read as today's flags: `prefill_url` and `decode_url` were the hosts and
 * ports of one prefill and one decode engine; the same value for both meant that decode used the port 100 above.
 */
import { readFile } from 'node:fs/promises';
import { errors } from '../core/errors.js';
import { type EngineAddress, engineAddress } from './address.js';

export interface LegacyEngines {
  readonly prefill: string;
  readonly decode: string;
  /** What to write instead, for people. */
  readonly notice: string;
}

const SAME_URL_DISTANCE = 100;
const MIN_DISTANCE = 50;

/** Undefined for a configuration that names no engines. @throws ERR_INVALID_ARGUMENT naming the file or the field */
export async function legacyEngines(path: string): Promise<LegacyEngines | undefined> {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(await readFile(path, 'utf8'));
    if (typeof fields !== 'object' || fields === null) throw new Error('no object');
  } catch (error) {
    throw errors.invalidArgument('--config', path, `a readable JSON file (${(error as Error).message})`);
  }
  if (fields.prefill_url === undefined && fields.decode_url === undefined) return undefined;
  const prefill = engineAddress('prefill_url', fields.prefill_url);
  const same = fields.decode_url === fields.prefill_url;
  const decode: EngineAddress = same
    ? engineAddress('decode_url', `${prefill.url.replace(/\d+$/, '')}${prefill.port + SAME_URL_DISTANCE}`)
    : engineAddress('decode_url', fields.decode_url);
  if (prefill.host === decode.host && Math.abs(prefill.port - decode.port) < MIN_DISTANCE) {
    const expected = `at least ${MIN_DISTANCE} ports from prefill_url on the same host`;
    throw errors.invalidArgument('decode_url', fields.decode_url, expected);
  }
  const notice =
    `${path} is a configuration of vLLM's V0 engine, which is no more; write instead:\n` +
    `  mooncake-ts proxy --prefill ${prefill.url} --decode ${decode.url}\n` +
    'and start each vLLM with\n' +
    `  ${engineForm('kv_producer', fields.protocol)}\n  ${engineForm('kv_consumer', fields.protocol)}`;
  return { prefill: prefill.url, decode: decode.url, notice };
}

function engineForm(role: string, protocol: unknown): string {
  const extra = typeof protocol === 'string' ? { kv_connector_extra_config: { mooncake_protocol: protocol } } : {};
  return `--kv-transfer-config '${JSON.stringify({ kv_connector: 'MooncakeConnector', kv_role: role, ...extra })}'`;
}
