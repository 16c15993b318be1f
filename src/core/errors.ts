/**
 * Every error the package throws on purpose: one class, a stable `code`, the argument that was wrong and its value.
 * A caller switches on `code`; the message is for people.
 */
export type ErrorCode =
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_LAYOUT_MISMATCH'
  | 'ERR_SNAPSHOT'
  | 'ERR_TRACE'
  | 'ERR_NOT_SUPPORTED'
  | 'ERR_UNDEFINED_HASH'
  | 'ERR_BUSY'
  | 'ERR_QUEUE_FULL'
  | 'ERR_ABORTED'
  | 'ERR_TIMEOUT'
  | 'ERR_CLOSED'
  | 'ERR_WORKER'
  | 'ERR_NO_INSTANCE'
  | 'ERR_NO_SPACE'
  | 'ERR_QUOTA'
  | 'ERR_UNKNOWN_TENANT'
  | 'ERR_NOT_FOUND'
  | 'ERR_NOT_READY'
  | 'ERR_LEASED'
  | 'ERR_NOT_OWNER'
  | 'ERR_SEGMENT'
  | 'ERR_CORRUPT'
  | 'ERR_NAMESPACE'
  | 'ERR_DATA_DIR'
  | 'ERR_PEER'
  | 'ERR_PROTOCOL'
  | 'ERR_VERSION'
  | 'ERR_ENGINE'
  | 'ERR_STALE';

export interface ErrorDetails {
  /** Name of the argument or field that was wrong, as the caller wrote it: `blockSize`, `tokens[3]`. */
  argument?: string;
  /** The value that was refused. */
  value?: unknown;
  cause?: unknown;
}

export class MooncakeError extends Error {
  override readonly name = 'MooncakeError';
  readonly code: ErrorCode;
  readonly argument?: string;
  readonly value?: unknown;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.argument = details.argument;
    this.value = details.value;
  }
}

const MAX_SHOWN = 64;
const cut = (text: string) => (text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);

/** A short, safe rendering of any value for a message. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(cut(value));
  if (typeof value === 'bigint') return cut(`${value}n`);
  if (typeof value === 'function') return 'a function';
  if (value === null || typeof value !== 'object') return String(value);
  try {
    if (Array.isArray(value)) return `an array of ${value.length}`;
    const name = cut(`${value.constructor.name}`);
    if (ArrayBuffer.isView(value)) return `${name} of ${value.byteLength} bytes`;
    return name === 'Object' ? 'an object' : name;
  } catch {
    // No constructor, or a getter or a proxy that throws: the refusal must not fail over its own message.
    return 'an object';
  }
}

export const errors = {
  /** `expected` completes "must be …". */
  invalidArgument: (argument: string, value: unknown, expected: string) =>
    new MooncakeError('ERR_INVALID_ARGUMENT', `${argument} must be ${expected}, got ${show(value)}`, {
      argument,
      value,
    }),
  outOfMemory: (what: string, bytes: number) =>
    new MooncakeError('ERR_OUT_OF_MEMORY', `${what} needs ${bytes} bytes, which its memory cannot grow to`, {
      argument: what,
      value: bytes,
    }),
  layoutMismatch: (argument: string, value: unknown, why: string) =>
    new MooncakeError('ERR_LAYOUT_MISMATCH', `${argument}: ${why} (${show(value)})`, { argument, value }),
  snapshot: (why: string, argument = 'snapshot', value?: unknown) =>
    new MooncakeError('ERR_SNAPSHOT', `snapshot refused: ${why}`, { argument, value }),
  trace: (line: number, why: string, value?: unknown) =>
    new MooncakeError('ERR_TRACE', `trace line ${line}: ${why}`, { argument: `line ${line}`, value }),
  notSupported: (what: string, instead: string) =>
    new MooncakeError('ERR_NOT_SUPPORTED', `${what} is not supported: ${instead}`, { argument: what }),
  undefinedHash: (argument: string, value: unknown, why: string) =>
    new MooncakeError('ERR_UNDEFINED_HASH', `${argument}: ${why}`, { argument, value }),
  busy: (what: string) => new MooncakeError('ERR_BUSY', `${what} is being written; try again`, { argument: what }),
  queueFull: (limit: number) =>
    new MooncakeError('ERR_QUEUE_FULL', `the queue holds its limit of ${limit} tasks`, {
      argument: 'maxQueue',
      value: limit,
    }),
  aborted: (reason?: unknown) => new MooncakeError('ERR_ABORTED', 'the call was aborted', { cause: reason }),
  timeout: (what: string, ms: number) =>
    new MooncakeError('ERR_TIMEOUT', `${what} took longer than ${ms} ms`, { argument: what, value: ms }),
  closed: (what: string) => new MooncakeError('ERR_CLOSED', `${what} is closed`, { argument: what }),
  noInstance: (instances: number) =>
    new MooncakeError('ERR_NO_INSTANCE', `none of the ${instances} instances is available`, { argument: 'load' }),
  /** The other side refused, died, or went silent; `address` says which. */
  peer: (address: string, why: string, cause?: unknown) =>
    new MooncakeError('ERR_PEER', `peer ${address}: ${why}`, { argument: 'peer', value: address, cause }),
  /** An address of ours on which nobody can be listened for. */
  listen: (address: string, why: string, cause?: unknown) =>
    new MooncakeError('ERR_PEER', `cannot listen on ${address}: ${why}`, { argument: 'port', value: address, cause }),
  /** Bytes that no peer of ours would send. */
  protocol: (why: string, value?: unknown) =>
    new MooncakeError('ERR_PROTOCOL', `protocol: ${why}`, { argument: 'frame', value }),
  /** Two ends of a protocol that do not speak the same version of it. */
  version: (argument: string, theirs: unknown, ours: number) =>
    new MooncakeError(
      'ERR_VERSION',
      `${argument} is ${show(theirs)}, this side speaks ${ours}: install the same version of both`,
      {
        argument,
        value: theirs,
      },
    ),
  /** Halves of one engine that do not belong together, or a second engine of the same id. */
  engine: (argument: string, value: unknown, why: string) =>
    new MooncakeError('ERR_ENGINE', `${argument}: ${why}`, { argument, value }),
  /** What belongs to a run that is over. */
  stale: (what: string, why: string) => new MooncakeError('ERR_STALE', `${what} is stale: ${why}`, { argument: what }),
  /** A segment that is not registered, or a range that leaves it. */
  segment: (argument: string, value: unknown, why: string) =>
    new MooncakeError('ERR_SEGMENT', `${argument}: ${why} (${show(value)})`, { argument, value }),
  /** Bytes whose checksum is not the one that came with them. */
  corrupt: (what: string, value?: unknown) =>
    new MooncakeError('ERR_CORRUPT', `${what}: the checksum does not match`, { argument: what, value }),
  /** Two that would share a key namespace disagree on what its bytes mean, or nobody said how it is to be used. */
  namespace: (argument: string, value: unknown, why: string) =>
    new MooncakeError('ERR_NAMESPACE', `${argument}: ${why}`, { argument, value }),
  /** A folder of persistent state that cannot be used, or not any more. */
  dataDir: (path: string, why: string, cause?: unknown) =>
    new MooncakeError('ERR_DATA_DIR', `data directory ${path}: ${why}`, { argument: 'dataDir', value: path, cause }),
  unknownTenant: (tenant: string) =>
    new MooncakeError('ERR_UNKNOWN_TENANT', `tenant ${show(tenant)} is not served here`, {
      argument: 'tenant',
      value: tenant,
    }),
  worker: (why: string, cause?: unknown) => new MooncakeError('ERR_WORKER', `worker: ${why}`, { cause }),
};
