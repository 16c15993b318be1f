/**
 * What an attached store and the store that it is attached to say to each other, as requests of the service
 * `mooncake-store` over a transfer (docs/store.md). Arrays of numbers go as their little-endian bytes, replicas as rows
 * that name their segment by its place in a list, so that an answer about thousands of keys is not thousands of objects.
 */
import { errors } from '../core/errors.js';
import { Keys } from '../core/keys.js';
import type { ObjectInfo, Outcome, Replica, ReplicateConfig, Uuid } from '../master/api.js';

export const SERVICE = 'mooncake-store';
export const VERSION = 1;

export type Message = Readonly<Record<string, unknown>>;

export function message(what: string, value: unknown): Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array) {
    throw errors.protocol(`${what} is no object`, value);
  }
  return value as Message;
}

/** What an owner says to a new client. */
export interface Hello {
  readonly client: Uuid;
  /** The address under which the metadata knows the segments; they are reached through the peer that answered. */
  readonly home: string;
  /** How long the room of a put that does not end is kept back. */
  readonly putReleaseMs: number;
  /** Where the segments are those of transfer engines: where their descriptors are found. Replicas' offsets are addresses then. */
  readonly engines?: string;
}

export function unpackHello(answer: unknown): Hello {
  const { client, home, putReleaseMs, engines } = message('the answer to hello', answer);
  if (!Number.isSafeInteger(putReleaseMs) || (putReleaseMs as number) < 0) {
    throw errors.protocol('putReleaseMs is no time', putReleaseMs);
  }
  return {
    client: text('client', client),
    home: text('home', home),
    putReleaseMs: putReleaseMs as number,
    engines: engines === undefined ? undefined : text('engines', engines),
  };
}

type NumberArray = Uint8Array | Uint32Array | Int32Array | Float64Array | BigUint64Array;

/** The bytes of an array of numbers. */
export function packed(array: NumberArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** An array of numbers from its bytes, which may lie anywhere: a copy. */
function numbers<T>(
  field: string,
  value: unknown,
  type: { new (buffer: ArrayBufferLike): T; readonly BYTES_PER_ELEMENT: number },
  count?: number,
): T {
  const size = type.BYTES_PER_ELEMENT;
  const fits = value instanceof Uint8Array && value.length % size === 0;
  if (!fits || (count !== undefined && value.length !== count * size)) {
    throw errors.protocol(`${field} is not ${count ?? 'a list of'} numbers of ${size} bytes`, value);
  }
  return new type(value.slice().buffer);
}

export const u32 = (field: string, value: unknown, count?: number) => numbers(field, value, Uint32Array, count);
export const i32 = (field: string, value: unknown, count?: number) => numbers(field, value, Int32Array, count);
export const f64 = (field: string, value: unknown, count?: number) => numbers(field, value, Float64Array, count);

export function text(field: string, value: unknown): string {
  if (typeof value !== 'string') throw errors.protocol(`${field} is no text`, value);
  return value;
}

export function flag(field: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw errors.protocol(`${field} is neither true nor false`, value);
  return value;
}

export function list(field: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw errors.protocol(`${field} is no list`, value);
  return value;
}

export function packKeys(keys: Keys): Message {
  return { keys: keys.bytes, offsets: packed(keys.offsets) };
}

export function unpackKeys(from: Message, most: number): Keys {
  if (!(from.keys instanceof Uint8Array)) throw errors.protocol('keys are no bytes', from.keys);
  const offsets = u32('offsets', from.offsets);
  if (offsets.length - 1 > most) throw errors.invalidArgument('keys', offsets.length - 1, `at most ${most} keys`);
  return new Keys(from.keys, offsets);
}

const CONFIG = [
  'replicas',
  'softPin',
  'softPinTtlMs',
  'hardPin',
  'preferredSegments',
  'hostId',
  'preferSameNode',
  'groups',
] as const satisfies readonly (keyof ReplicateConfig)[];

/** The fields of a configuration and no others; the service checks what they hold. */
export function configOf(from: object): ReplicateConfig {
  const config: Record<string, unknown> = {};
  for (const field of CONFIG) {
    const value = (from as Message)[field];
    if (value !== undefined) config[field] = value;
  }
  return config as ReplicateConfig;
}

/** Checksums: 8 bytes and a byte that says whether there is one. */
export function packSums(sums: readonly (bigint | undefined)[]): Message {
  return {
    sums: packed(BigUint64Array.from(sums, (sum) => sum ?? 0n)),
    given: Uint8Array.from(sums, (sum) => (sum === undefined ? 0 : 1)),
  };
}

export function unpackSums(from: Message, count: number): (bigint | undefined)[] {
  const sums = numbers('sums', from.sums, BigUint64Array, count);
  const given = numbers('given', from.given, Uint8Array, count);
  return Array.from(sums, (sum, i) => (given[i] ? sum : undefined));
}

type Row = readonly [id: number, complete: boolean, segment: number, offset: number, size: number];

/** Rows of replicas and the segments that they name. */
export class ReplicaRows {
  readonly segments: string[][] = [];
  readonly #numbers = new Map<string, number>();

  row(replica: Replica): Row {
    const { id, state, segment, segmentName, endpoint, protocol, offset, size } = replica;
    const name = `${segment} ${endpoint}`;
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.segments.push([segment, segmentName, endpoint, protocol]) - 1;
      this.#numbers.set(name, number);
    }
    return [id, state === 'complete', number, offset, size];
  }
}

/** Reads rows back; ERR_PROTOCOL for what are none. */
export function replicaReader(segments: unknown): (rows: unknown) => Replica[] {
  const known = list('segments', segments).map((entry) => list('segment', entry).map((part) => text('segment', part)));
  const replica = (value: unknown): Replica => {
    const [id, complete, number, offset, size] = list('replica', value);
    const whole = [id, number, offset, size].every((field) => Number.isSafeInteger(field) && (field as number) >= 0);
    const named = known[number as number];
    if (!whole || named?.length !== 4) throw errors.protocol('a replica is malformed', value);
    const [segment, segmentName, endpoint, protocol] = named;
    return {
      id: id as number,
      kind: 'memory',
      state: complete === true ? 'complete' : 'processing',
      segment,
      segmentName,
      endpoint,
      protocol,
      offset: offset as number,
      size: size as number,
    };
  };
  return (rows) => list('replicas', rows).map(replica);
}

/** Statuses of outcomes, the words of those that failed, and what `row` makes of the values. */
function packOutcomes<T>(outcomes: readonly Outcome<T>[], row: (value: T) => unknown): Message {
  return {
    statuses: packed(Int32Array.from(outcomes, (outcome) => (outcome.ok ? 0 : outcome.status))),
    rows: outcomes.map((outcome) => (outcome.ok ? row(outcome.value) : outcome.why)),
  };
}

function unpackOutcomes<T>(answer: Message, count: number, value: (row: unknown) => T): Outcome<T>[] {
  const statuses = i32('statuses', answer.statuses, count);
  const rows = list('rows', answer.rows);
  if (rows.length !== count) throw errors.protocol(`${rows.length} answers for ${count} keys`, rows);
  return rows.map((row, i) => {
    if (statuses[i] > 0) throw errors.protocol('a status is above 0', statuses[i]);
    if (statuses[i] === 0) return { ok: true, value: value(row) };
    return { ok: false, status: statuses[i], why: text('why', row) };
  });
}

export function packPlaces(outcomes: readonly Outcome<Replica[]>[]): Message {
  const rows = new ReplicaRows();
  return { ...packOutcomes(outcomes, (replicas) => replicas.map((each) => rows.row(each))), segments: rows.segments };
}

/** Where objects of these sizes are to be written. */
export function unpackPlaces(answer: Message, sizes: Float64Array): Outcome<Replica[]>[] {
  const outcomes = unpackOutcomes(answer, sizes.length, replicaReader(answer.segments));
  for (const [i, outcome] of outcomes.entries()) {
    if (!outcome.ok) continue;
    if (outcome.value.length === 0) throw errors.protocol('an object was started without a replica', i);
    checkSizes(outcome.value, sizes[i]);
  }
  return outcomes;
}

function checkSizes(replicas: readonly Replica[], size: number): void {
  const other = replicas.find((replica) => replica.size !== size);
  if (other) throw errors.protocol(`a replica of an object of ${size} bytes has another size`, other.size);
}

export function packInfos(outcomes: readonly Outcome<ObjectInfo>[]): Message {
  const rows = new ReplicaRows();
  const row = ({ replicas, size, checksum, leaseMs }: ObjectInfo) => [
    replicas.map((each) => rows.row(each)),
    size,
    checksum ?? null,
    leaseMs,
  ];
  return { ...packOutcomes(outcomes, row), segments: rows.segments };
}

export function unpackInfos(answer: Message, count: number): Outcome<ObjectInfo>[] {
  const replicas = replicaReader(answer.segments);
  return unpackOutcomes(answer, count, (value) => {
    const [rows, size, checksum, leaseMs] = list('object', value);
    const sum = Number.isInteger(checksum) ? BigInt(checksum as number) : checksum;
    const good = Number.isSafeInteger(size) && (size as number) > 0 && typeof leaseMs === 'number' && leaseMs >= 0;
    if (!good || (sum !== null && typeof sum !== 'bigint')) throw errors.protocol('an object is malformed', value);
    const copies = replicas(rows);
    checkSizes(copies, size as number);
    return { replicas: copies, size: size as number, checksum: sum ?? undefined, leaseMs: leaseMs as number };
  });
}
