/**
 * What an engine says when it attaches: itself, and the connector that it wants. Both halves say the same, and a second
 * engine must not pass for one that lives, so the two are compared field by field.
 */

import type { EngineInfo } from '../connector/api.js';
import { integer, oneOf, string } from '../core/check.js';
import { errors, show } from '../core/errors.js';
import { type HashOptions, noneHash } from '../core/hash.js';
import { toHex } from '../core/hex.js';
import { type Fields, list, record } from './arguments.js';

const KINDS = ['store', 'mooncake', 'multi'] as const;
const MAX_PARTS = 8;
const MAX_RANKS = 1 << 16;

/** A connector by kind, with the options of the class that are plain data. */
export interface ConnectorSpec {
  readonly kind: (typeof KINDS)[number];
  readonly options: Fields;
  /** Of a multi. */
  readonly parts: readonly ConnectorSpec[];
}

export interface AttachSpec {
  readonly engine: EngineInfo;
  readonly connector: ConnectorSpec;
  /** Everything that was said, flat, by name: to compare. */
  readonly said: ReadonlyMap<string, unknown>;
}

/** Throws ERR_INVALID_ARGUMENT, naming the field. */
export function readAttach(args: Fields): AttachSpec {
  const given = record('engine', args.engine);
  const hash = record('engine.hash', given.hash);
  const engine: EngineInfo = {
    engineId: string('engine.engineId', given.engineId),
    model: string('engine.model', given.model),
    role: oneOf('engine.role', given.role ?? 'both', ['producer', 'consumer', 'both'] as const),
    hash: hashOf(hash),
    tensorParallelSize: integer('engine.tensorParallelSize', given.tensorParallelSize ?? 1, 1, MAX_RANKS),
  };
  const said = new Map<string, unknown>();
  flatten('engine', engine, said);
  flatten('connector', args.connector, said);
  return { engine, connector: readConnector('connector', args.connector), said };
}

/** What the hasher does not know of is compared and no more. An engine may say its NONE_HASH, to be sure of it. */
function hashOf(hash: Fields): HashOptions {
  const { algorithm, blockSize, seed, noneHash: said } = hash;
  const options: Record<string, unknown> = { blockSize };
  if (algorithm !== undefined && algorithm !== null) options.algorithm = algorithm;
  if (seed !== undefined && seed !== null) options.seed = seed;
  const known = options as unknown as HashOptions;
  const own = toHex(noneHash(known.algorithm, known.seed));
  if (said === undefined || said === null || hexOf(said) === own) return known;
  throw errors.engine(
    'engine.hash.noneHash',
    hexOf(said),
    `the engine hashes from ${show(hexOf(said))}, its algorithm and seed give ${show(own)}: start it with PYTHONHASHSEED set, and say it as seed`,
  );
}

const hexOf = (value: unknown) => (value instanceof Uint8Array ? toHex(value) : string('engine.hash.noneHash', value));

function readConnector(path: string, value: unknown): ConnectorSpec {
  const { kind, connectors, ...options } = record(path, value);
  const known = oneOf(`${path}.kind`, kind, KINDS);
  const parts = list(`${path}.connectors`, connectors);
  if (known !== 'multi') return { kind: known, options, parts: [] };
  if (parts.length === 0 || parts.length > MAX_PARTS) {
    throw errors.invalidArgument(`${path}.connectors`, connectors, `an array of 1 to ${MAX_PARTS}`);
  }
  return {
    kind: known,
    options,
    parts: parts.map((part, index) => readConnector(`${path}.connectors[${index}]`, part)),
  };
}

/** Throws ERR_ENGINE, naming the first field in which the halves of one engine differ, and both values. */
export function checkSame(known: AttachSpec, given: AttachSpec): void {
  for (const name of new Set([...known.said.keys(), ...given.said.keys()])) {
    const [theirs, ours] = [known.said.get(name) ?? null, given.said.get(name) ?? null];
    if (theirs === ours) continue;
    const id = show(known.engine.engineId);
    throw errors.engine(name, ours, `this half of engine ${id} says ${show(ours)}, the others say ${show(theirs)}`);
  }
}

function flatten(path: string, value: unknown, into: Map<string, unknown>): void {
  if (value === undefined || value === null) return;
  if (value instanceof Uint8Array) into.set(path, Buffer.from(value).toString('hex'));
  else if (typeof value !== 'object') into.set(path, value);
  else for (const [key, one] of Object.entries(value)) flatten(`${path}.${key}`, one, into);
}
