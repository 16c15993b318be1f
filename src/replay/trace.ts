/**
 * A trace in memory: the requests in order and the blocks of each prompt, as typed arrays. Trace ids are arbitrary
 * integers; here a block is a dense index in order of first appearance, which policies use as their slot.
 *
 *   request r:  blocks[offsets[r] … offsets[r + 1])      first block of the prompt first
 *   block b:    hashes[b] (splitmix64 of its trace id), the block's key in the prefix index
 *               chains[at] = hashes[blocks[at]]: the keys of a whole prompt are one slice
 *
 * Ids are prefix hashes: one id stands for a block and all blocks before it. Both published Mooncake traces are so, the
 * hit rule (leading run) and the prefix index rest on it, and a trace that breaks it is refused.
 */
import { errors, type MooncakeError, show } from '../core/errors.js';
import { MAX_HASHES } from '../core/prefix.js';
import { writeHash } from './hash.js';

export interface Trace {
  requests: number;
  /** Distinct blocks: indices are 0 to unique - 1. */
  unique: number;
  /** requests + 1 positions into `blocks`. */
  offsets: Uint32Array;
  blocks: Uint32Array;
  chains: BigUint64Array;
  hashes: BigUint64Array;
  /** Milliseconds since the start of the trace. */
  timestamps: Float64Array;
  /** Tokens. */
  inputLengths: Uint32Array;
  outputLengths: Uint32Array;
}

/** One request as traces spell it. */
export interface TraceRequest {
  timestamp: number;
  input_length: number;
  output_length: number;
  hash_ids: readonly number[];
}

/** Blocks of all prompts together: with their keys they take 3 GB. */
const MAX_POSITIONS = 2 ** 28;
/** Distinct blocks: as many keys as V8 allows a Map. */
const MAX_UNIQUE = 2 ** 24;

const FIELDS = ['timestamp', 'input_length', 'output_length', 'hash_ids'] as const;

type Growable = Uint32Array | Int32Array | Float64Array;

function grown<T extends Growable>(array: T, needed: number): T {
  if (needed <= array.length) return array;
  const larger = new (array.constructor as new (length: number) => T)(Math.max(needed, array.length * 2));
  larger.set(array);
  return larger;
}

/**
 * Collects requests into a Trace and checks each. `line` numbers the request in errors (ERR_TRACE); one that is refused
 * leaves nothing behind.
 */
export class TraceBuilder {
  #requests = 0;
  #positions = 0;
  readonly #index = new Map<number, number>();
  #offsets = new Uint32Array(1024);
  #blocks = new Uint32Array(16384);
  #ids = new Float64Array(8192);
  /** Per block: the block before it (-1 for the first of a prompt) and the line that said so, for the message. */
  #parents = new Int32Array(8192);
  #lines = new Uint32Array(8192);
  #timestamps = new Float64Array(1024);
  #inputLengths = new Uint32Array(1024);
  #outputLengths = new Uint32Array(1024);

  add(request: TraceRequest, line: number): void {
    if (typeof request !== 'object' || request === null || Array.isArray(request)) {
      throw errors.trace(line, `must be a JSON object, got ${show(request)}`, request);
    }
    for (const field of FIELDS) {
      if (!(field in request)) throw errors.trace(line, `${field} is missing`, request);
    }
    const { timestamp, input_length, output_length, hash_ids } = request;
    const row = this.#requests;
    if (typeof timestamp !== 'number' || !Number.isFinite(timestamp) || timestamp < 0) {
      throw refused(line, 'timestamp', timestamp, 'milliseconds, a number of at least 0');
    }
    const previous = row > 0 ? this.#timestamps[row - 1] : 0;
    if (timestamp < previous) {
      throw refused(line, 'timestamp', timestamp, `at least the previous request's ${previous}: sort the trace`);
    }
    this.#timestamps = grown(this.#timestamps, row + 1);
    this.#inputLengths = grown(this.#inputLengths, row + 1);
    this.#outputLengths = grown(this.#outputLengths, row + 1);
    this.#offsets = grown(this.#offsets, row + 2);
    this.#timestamps[row] = timestamp;
    this.#inputLengths[row] = tokenCount(line, 'input_length', input_length);
    this.#outputLengths[row] = tokenCount(line, 'output_length', output_length);
    this.#addBlocks(hash_ids, line);
    this.#requests = row + 1;
    this.#offsets[row + 1] = this.#positions;
  }

  #addBlocks(ids: readonly number[], line: number): void {
    if (!Array.isArray(ids)) throw refused(line, 'hash_ids', ids, 'an array of block ids');
    if (ids.length > MAX_HASHES) throw refused(line, 'hash_ids.length', ids.length, `at most ${MAX_HASHES}`);
    const end = this.#positions + ids.length;
    if (end > MAX_POSITIONS) throw errors.trace(line, `the trace has more than ${MAX_POSITIONS} blocks`, end);
    this.#blocks = grown(this.#blocks, end);
    const [positions, unique] = [this.#positions, this.#index.size];
    try {
      let parent = -1;
      for (let at = 0; at < ids.length; at++) {
        const id = ids[at];
        if (!Number.isSafeInteger(id) || id < 0) {
          throw refused(line, `hash_ids[${at}]`, id, 'an integer from 0 to 2^53 - 1');
        }
        parent = this.#block(id, parent, at, line);
        this.#blocks[this.#positions++] = parent;
      }
    } catch (error) {
      this.#positions = positions;
      while (this.#index.size > unique) this.#index.delete(this.#ids[this.#index.size - 1]);
      throw error;
    }
  }

  #block(id: number, parent: number, at: number, line: number): number {
    const known = this.#index.get(id);
    if (known === undefined) {
      const block = this.#index.size;
      if (block === MAX_UNIQUE) throw errors.trace(line, `the trace has more than ${MAX_UNIQUE} distinct blocks`, id);
      this.#index.set(id, block);
      this.#ids = grown(this.#ids, block + 1);
      this.#parents = grown(this.#parents, block + 1);
      this.#lines = grown(this.#lines, block + 1);
      this.#ids[block] = id;
      this.#parents[block] = parent;
      this.#lines[block] = line;
      return block;
    }
    if (this.#parents[known] !== parent) {
      const follows = (block: number) => (block < 0 ? 'starts a prompt' : `follows ${this.#ids[block]}`);
      throw errors.trace(
        line,
        `hash_ids[${at}] = ${id} ${follows(parent)} here and ${follows(this.#parents[known])} on line ${this.#lines[known]}; ` +
          'an id must stand for a block and all blocks before it',
        id,
      );
    }
    return known;
  }

  /** The trace so far; the builder is not to be used again. */
  build(): Trace {
    const unique = this.#index.size;
    const hashes = new Uint32Array(2 * unique);
    for (let block = 0; block < unique; block++) writeHash(hashes, block, this.#ids[block]);
    const chains = new Uint32Array(2 * this.#positions);
    for (let at = 0; at < this.#positions; at++) {
      chains[2 * at] = hashes[2 * this.#blocks[at]];
      chains[2 * at + 1] = hashes[2 * this.#blocks[at] + 1];
    }
    return {
      requests: this.#requests,
      unique,
      offsets: this.#offsets.slice(0, this.#requests + 1),
      blocks: this.#blocks.slice(0, this.#positions),
      chains: new BigUint64Array(chains.buffer),
      hashes: new BigUint64Array(hashes.buffer),
      timestamps: this.#timestamps.slice(0, this.#requests),
      inputLengths: this.#inputLengths.slice(0, this.#requests),
      outputLengths: this.#outputLengths.slice(0, this.#requests),
    };
  }
}

function refused(line: number, field: string, value: unknown, expected: string): MooncakeError {
  return errors.trace(line, `${field} must be ${expected}, got ${show(value)}`, value);
}

function tokenCount(line: number, field: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw refused(line, field, value, 'a number of tokens, an integer from 0 to 2^32 - 1');
  }
  return value;
}
