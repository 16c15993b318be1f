/**
 * The `mooncake.json` of vLLM's V0 integration, as today's flags. It names the two hosts; the ports in it were those of their
 * transfer engines. Where they served HTTP it does not say: 8100 and 8200, as Mooncake's V0 guides and their proxy had it.
 */
import { readLegacy } from '../config/legacy.js';
import { formatName } from '../transfer/metadata/name.js';

export interface LegacyEngines {
  readonly prefill: string;
  readonly decode: string;
  /** What to write instead, for people. */
  readonly notice: string;
}

const PREFILL_PORT = 8100;
const DECODE_PORT = 8200;

/** Undefined for a configuration that is none of V0. @throws ERR_INVALID_ARGUMENT naming the file and the name in it */
export async function legacyEngines(path: string): Promise<LegacyEngines | undefined> {
  const legacy = await readLegacy(path, '--config');
  if (legacy === undefined) return undefined;
  const prefill = `http://${formatName({ ...legacy.prefill, port: PREFILL_PORT })}`;
  const decode = `http://${formatName({ ...legacy.decode, port: DECODE_PORT })}`;
  const notice =
    `${path} is a configuration of vLLM's V0 engine, which is no more; write instead\n` +
    `  mooncake-ts proxy --prefill ${prefill} --decode ${decode}\n` +
    `with the ports that your vLLM servers have (${PREFILL_PORT} and ${DECODE_PORT} are those of the V0 guides), and start each with what\n` +
    `  mooncake-ts vllm-args prefill\n  mooncake-ts vllm-args decode\nprint`;
  return { prefill, decode, notice };
}
