/**
 * Configuration files: JSON and YAML, read into flat names. A file says what flags and variables say too, so it holds
 * texts, numbers and truth values; a mapping within a mapping joins its names with a dot, as in the stock master's files.
 * What a name means is its reader's; whatever is wrong with the file itself is said here, with the file and the name.
 */
import { readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { parseDocument } from 'yaml';
import { errors, MooncakeError } from '../core/errors.js';

export type ConfigValue = string | number | boolean;

export interface ConfigFile {
  readonly path: string;
  /** By flat name, in the file's order. A name whose value is null is not there. */
  readonly values: ReadonlyMap<string, ConfigValue>;
}

/** Bytes of the largest file that is read: a configuration has some hundred. */
const MAX_BYTES = 1 << 20;

/** Mappings within mappings. */
const MAX_DEPTH = 8;

/**
 * Reads a file: `.json` is JSON, `.yaml` and `.yml` are YAML, anything else JSON where its first character is a brace.
 * @param argument what the caller calls the path, for the errors about it
 * @throws ERR_INVALID_ARGUMENT naming `argument` where the file cannot be read, and the file with the line or the name
 * where it is not a configuration
 */
export async function readConfig(path: string, argument = 'path'): Promise<ConfigFile> {
  const text = await readText(path, argument);
  const root = isJson(path, text) ? parseJson(path, text) : parseYaml(path, text);
  const values = new Map<string, ConfigValue>();
  // An empty YAML file says nothing, which is no error.
  if (root !== null) flatten(path, '', root, values, 0);
  return { path, values };
}

/** The error of a reader that does not take a value; `expected` completes "must be …". */
export function refused({ path, values }: ConfigFile, name: string, expected: string): MooncakeError {
  return errors.invalidArgument(`${path}: ${name}`, values.get(name), expected);
}

async function readText(path: string, argument: string): Promise<string> {
  let problem: string;
  try {
    const found = await stat(path);
    // Reading a pipe would wait for its writer.
    if (found.isFile() && found.size <= MAX_BYTES) return (await readFile(path, 'utf8')).replace(/^\uFEFF/, '');
    problem = found.isFile() ? `of at most ${MAX_BYTES} bytes, this has ${found.size}` : 'and no folder or device';
  } catch (error) {
    problem = `that can be read (${(error as NodeJS.ErrnoException).code ?? error})`;
  }
  throw errors.invalidArgument(argument, path, `a file ${problem}`);
}

function isJson(path: string, text: string): boolean {
  const extension = extname(path).toLowerCase();
  if (extension === '.yaml' || extension === '.yml') return false;
  return extension === '.json' || text.trimStart().startsWith('{');
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw unreadable(path, 'JSON', (error as Error).message);
  }
}

function parseYaml(path: string, text: string): unknown {
  // Names are unique, and aliases that would make a small file a large one are refused.
  const document = parseDocument(text, { prettyErrors: true });
  const [problem] = document.errors;
  if (problem) throw unreadable(path, 'YAML', problem.message.split(/:?\n/, 1)[0]);
  try {
    return document.toJS({ mapAsMap: true });
  } catch (error) {
    throw unreadable(path, 'YAML', (error as Error).message);
  }
}

function unreadable(path: string, format: string, why: string): MooncakeError {
  return new MooncakeError('ERR_INVALID_ARGUMENT', `${path} is not ${format}: ${why}`, { argument: path });
}

function flatten(path: string, prefix: string, node: unknown, into: Map<string, ConfigValue>, depth: number): void {
  const entries = entriesOf(node);
  if (!entries || depth > MAX_DEPTH) {
    const expected = depth > MAX_DEPTH ? `nested at most ${MAX_DEPTH} deep` : 'names and their values';
    throw errors.invalidArgument(prefix === '' ? path : `${path}: ${prefix}`, node, expected);
  }
  for (const [key, value] of entries) {
    const name = prefix === '' ? String(key) : `${prefix}.${key}`;
    if (value === null) continue;
    if (entriesOf(value)) flatten(path, name, value, into, depth + 1);
    else if (into.has(name)) throw errors.invalidArgument(`${path}: ${name}`, value, 'given once');
    else into.set(name, scalar(`${path}: ${name}`, value));
  }
}

/** What a mapping holds; undefined for anything else. */
function entriesOf(node: unknown): Iterable<[unknown, unknown]> | undefined {
  if (node instanceof Map) return node;
  return typeof node === 'object' && node !== null && !Array.isArray(node) && !ArrayBuffer.isView(node)
    ? Object.entries(node)
    : undefined;
}

function scalar(name: string, value: unknown): ConfigValue {
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  // A number beyond these is not the one that the file says.
  if (typeof value === 'number' && Math.abs(value) <= Number.MAX_SAFE_INTEGER) return value;
  throw errors.invalidArgument(name, value, 'a text, true or false, or a number from -(2^53-1) to 2^53-1');
}
