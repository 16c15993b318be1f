/**
 * What the master is told, and by whom: the file that `--config_path` names (JSON or YAML, the stock master's names) and the
 * flags, which win over it. A stock master passes over names that it does not know; here they are an error, because a setting
 * that was misspelt is one that is not in force.
 */
import { readConfig } from '../config/file.js';
import { errors, MooncakeError } from '../core/errors.js';
import type { MooncakeMasterOptions } from '../master/server/master.js';
import { defaultOf, FLAGS } from './master-flags.js';

/** A setting in force. */
export interface Setting {
  /** As the flag is called. */
  name: string;
  value: string;
  /** "default", "flag", or the path of the file. */
  from: string;
  /** As the error names it: `--client_ttl`, or `/etc/master.yaml: client_live_ttl_sec`. */
  label: string;
}

/** Names that mean what another means: the stock master's files call some settings otherwise than its flags. */
const SAME: Record<string, string> = { port: 'rpc_port', client_live_ttl_sec: 'client_ttl' };

const canonical = (name: string) => SAME[name] ?? name;
/** So that the name itself wins, as rpc_port does on stock. */
const aliasesFirst = <T>(entries: Iterable<[string, T]>) =>
  [...entries].sort(([a], [b]) => Number(b in SAME) - Number(a in SAME));
const BY_NAME = new Map(FLAGS.map((flag) => [flag.name, flag]));

/**
 * What was typed and what the file says, in the order of the flags.
 * @throws ERR_INVALID_ARGUMENT naming the file, the name in it, and the known name that is nearest
 */
export async function settingsOf(typed: Readonly<Record<string, string | true>>): Promise<Setting[]> {
  const settings = new Map<string, Setting>();
  const path = typed.config_path;
  if (path === true) throw errors.invalidArgument('--config_path', '', 'the path of a JSON or YAML file');
  const file = path === undefined ? undefined : await readConfig(path, '--config_path');
  for (const [key, value] of aliasesFirst(file?.values ?? [])) {
    const name = canonical(key);
    if (!BY_NAME.has(name)) throw unknown(file!.path, key);
    settings.set(name, { name, value: `${value}`, from: file!.path, label: `${file!.path}: ${key}` });
  }
  for (const [flag, value] of aliasesFirst(Object.entries(typed))) {
    const name = canonical(flag);
    if (BY_NAME.has(name)) {
      settings.set(name, { name, value: value === true ? 'true' : value, from: 'flag', label: `--${flag}` });
    }
  }
  // In the order of the list: a port of the metadata server counts where the server is wanted.
  return FLAGS.flatMap(({ name }) => settings.get(name) ?? []);
}

/** Options from settings. Throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED naming the flag, or the file and the name in it. */
export function optionsOf(settings: readonly Setting[]): MooncakeMasterOptions {
  const options: MooncakeMasterOptions = {};
  for (const { name, value, label } of settings) {
    try {
      BY_NAME.get(name)!.apply(value, options, name);
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      // Flags name themselves; people look for what they wrote.
      const message = error.message.replace(`--${name}`, label);
      throw new MooncakeError(error.code, message, { argument: label, value: error.value });
    }
  }
  return options;
}

/** All that is in force: what was said, and the defaults of the rest. */
export function inForce(settings: readonly Setting[]): Setting[] {
  const said = new Map(settings.map((setting) => [setting.name, setting]));
  return FLAGS.flatMap((flag) => {
    const value = flag.hidden ? undefined : defaultOf(flag);
    const initial = value === undefined ? [] : { name: flag.name, value, from: 'default', label: `--${flag.name}` };
    return said.get(flag.name) ?? initial;
  });
}

function unknown(path: string, key: string): MooncakeError {
  const known = [...BY_NAME.keys(), ...Object.keys(SAME)];
  const near = known.map((name) => [distance(key, name), name] as const).sort(([a], [b]) => a - b)[0];
  const hint = near[0] <= Math.max(2, key.length / 3) ? `; did you mean ${near[1]}?` : '';
  const argument = `${path}: ${key}`;
  return new MooncakeError('ERR_INVALID_ARGUMENT', `${argument} is no setting of the master${hint}`, { argument });
}

/** Of Levenshtein: insertions, deletions and replacements from one text to the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(row[j] + (a[i] === b[j] ? 0 : 1), row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row[b.length];
}
