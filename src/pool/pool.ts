/**
 * The pool as callers see it: the calls of the core, as promises. Small ones run on the calling thread, large ones in
 * workers; arguments and answers are the same. A pool is made by `new WorkerPool()` in Node and by `connect()`
 * (mooncake-ts/workers) over workers of any platform.
 */
import { type HashDone, TaskContext, tasks } from '../../workers/tasks.js';
import type { BlockHashes } from '../core/block-hashes.js';
import { boolean, integer, oneOf, options as plainOptions } from '../core/check.js';
import { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { BlockHashOptions, HashOptions, Prompt, Tokens } from '../core/hash.js';
import type { KvLayout } from '../core/layout.js';
import type { PlanOptions, TransferBlocks } from '../core/layout-plan.js';
import { MAX_GROUPS, PrefixIndex } from '../core/prefix.js';
import { checkHashes, type Hashes, isApproximate } from '../core/prefix-keys.js';
import { PrefixMatch } from '../core/prefix-match.js';
import type { PrefixReaderHandle } from '../core/prefix-reader.js';
import { sharedCoreModule } from '../core/wasm.js';
import type { CallOptions, Piece } from './call.js';
import { alone, canShare, LANE_BYTES } from './lanes.js';
import { giveReaders, takeReader } from './readers.js';
import {
  hashPieces,
  hashResults,
  type ListedPrompt,
  matchPieces,
  onePrompt,
  planPiece,
  promptList,
  unpackMatches,
} from './requests.js';
import { DEPTH, type Door, type PoolStats, Scheduler } from './scheduler.js';
import type { Payload, WorkerSetup } from './wire.js';

export type { CallOptions } from './call.js';
export type { PoolStats } from './scheduler.js';

export interface PoolOptions {
  /** Workers, 1 to 256. Default: the platform's parallelism. */
  threads?: number;
  /** Calls that wait for a worker at most, 1 to 2^20. Default 1,024. */
  maxQueue?: number;
  /**
   * What a call does that finds the queue full: waits its turn behind it (`wait`, the default; a producer awaits
   * `ready()` to stay behind the workers) or rejects with ERR_QUEUE_FULL (`throw`).
   */
  onFull?: 'wait' | 'throw';
  /** The index to match against, made with `shared: true`. This thread goes on writing it. */
  index?: PrefixIndex;
  /** Where calls run: `auto` (the default) sends those worth a worker by measured cost, `always` none, `never` all. */
  inline?: 'auto' | 'always' | 'never';
}

export interface MatchOptions {
  /** KV-cache group, 0 (the default) to 15. */
  group?: number;
}

export interface HashAndMatchOptions extends MatchOptions {
  /** Whether the answer holds the hashes too. Default false: they are 30 times the size of a match. */
  hashes?: boolean;
}

export interface HashedMatch {
  match: PrefixMatch;
  /** With `hashes: true`. */
  hashes?: BlockHashes;
}

/** Opens the door that a pool was made for. */
export type OpenDoor = (setup: WorkerSetup, threads: number) => Door;

const MAX_TIMEOUT = 2 ** 31 - 1;

export class TaskPool implements AsyncDisposable {
  readonly #scheduler: Scheduler;
  readonly #index?: PrefixIndex;
  readonly #readers: PrefixReaderHandle[] = [];

  constructor(options: PoolOptions, open: OpenDoor, parallelism: number) {
    const { threads, maxQueue, onFull, inline, index } = plainOptions('options', options);
    const count = integer('threads', threads ?? parallelism, 1, 256);
    const lanes = DEPTH * count;
    const arena = canShare() ? new SharedArrayBuffer(lanes * LANE_BYTES) : undefined;
    if (index !== undefined && !(index instanceof PrefixIndex && index.shared)) {
      throw errors.invalidArgument('index', index, 'a PrefixIndex made with { shared: true }');
    }
    const queue = {
      maxQueue: integer('maxQueue', maxQueue ?? 1024, 1, 2 ** 20),
      onFull: oneOf('onFull', onFull ?? 'wait', ['wait', 'throw'] as const),
      inline: oneOf('inline', inline ?? 'auto', ['auto', 'always', 'never'] as const),
    };
    this.#index = index;
    const setup: WorkerSetup = { arena };
    if (index) {
      setup.core = sharedCoreModule();
      this.#readers = setup.readers = Array.from({ length: lanes }, () => takeReader(index));
    }
    const context = new TaskContext(() => index as PrefixIndex);
    const runHere = (piece: Piece) => {
      const { arrays, rest } = tasks[piece.kind](piece, context, -1);
      return { arrays: arrays.map(alone), rest };
    };
    try {
      this.#scheduler = new Scheduler({ ...queue, arena, lanes, runHere, door: open(setup, count) });
    } catch (error) {
      if (index) giveReaders(index, this.#readers);
      throw error;
    }
  }

  /**
   * `blockHashes` of a prompt. Arguments must not change until the promise settles; tokens in shared memory are read in place.
   *
   * @throws what `blockHashes` throws, and ERR_ABORTED, ERR_TIMEOUT, ERR_QUEUE_FULL, ERR_CLOSED, and ERR_WORKER when the
   *   worker that had the call died (another takes its place).
   */
  async hash(tokens: Tokens, options: BlockHashOptions, call?: CallOptions): Promise<BlockHashes> {
    const { parent, extraKeys, ...shared } = plainOptions('options', options);
    const pieces = hashPieces([onePrompt({ tokens, parent, extraKeys })], shared, false);
    return (await this.#hashes(pieces, call))[0];
  }

  /** `blockHashesBatch` of many prompts, divided among the workers. */
  async hashBatch(
    prompts: readonly (Tokens | Prompt)[],
    options: HashOptions,
    call?: CallOptions,
  ): Promise<BlockHashes[]> {
    return this.#hashes(hashPieces(promptList(prompts), plainOptions('options', options), true), call);
  }

  /** `match` of the pool's index, on any thread: the answer is that of one moment between call and answer. */
  async match(hashes: Hashes, options?: MatchOptions, call?: CallOptions): Promise<PrefixMatch> {
    return (await this.#matches('hashes', [hashes], options, call))[0];
  }

  /** The same for many chains of hashes, divided among the workers. */
  async matchBatch(chains: readonly Hashes[], options?: MatchOptions, call?: CallOptions): Promise<PrefixMatch[]> {
    if (!Array.isArray(chains)) throw errors.invalidArgument('chains', chains, 'an array of block hashes');
    return this.#matches('chains', chains, options, call);
  }

  /** `hash` and `match` in one go. Without `hashes: true` the hashes stay in the worker. */
  async hashAndMatch(
    tokens: Tokens,
    options: BlockHashOptions & HashAndMatchOptions,
    call?: CallOptions,
  ): Promise<HashedMatch> {
    const { parent, extraKeys, ...shared } = plainOptions('options', options);
    return (await this.#both([onePrompt({ tokens, parent, extraKeys })], shared, false, call))[0];
  }

  /** The same for many prompts, divided among the workers: from tokens to who has them, with nothing large in between. */
  async hashAndMatchBatch(
    prompts: readonly (Tokens | Prompt)[],
    options: HashOptions & HashAndMatchOptions,
    call?: CallOptions,
  ): Promise<HashedMatch[]> {
    return this.#both(promptList(prompts), plainOptions('options', options), true, call);
  }

  /** `planTransfer`: the descriptors that move these blocks. A worker keeps the plans of the layouts that it has seen. */
  async plan(
    source: KvLayout,
    destination: KvLayout,
    options: PlanOptions & TransferBlocks,
    call?: CallOptions,
  ): Promise<Descriptors> {
    const piece = planPiece(source, destination, plainOptions('options', options));
    const [{ arrays }] = await this.#scheduler.run([piece], checkedCall(call));
    return new Descriptors(arrays[0] as Uint8Array);
  }

  /** Resolves when the queue has room: what a producer awaits between calls. */
  ready(): Promise<void> {
    return this.#scheduler.ready();
  }

  get stats(): PoolStats {
    return this.#scheduler.stats();
  }

  /**
   * Takes no more calls (ERR_CLOSED) and ends the workers: after the calls taken have ended, or with `force` at once, and
   * those calls reject with ERR_CLOSED.
   */
  async close(options?: { force?: boolean }): Promise<void> {
    const { force = false } = plainOptions('options', options);
    const idle = await this.#scheduler.close(boolean('force', force));
    const readers = this.#readers.splice(0);
    if (readers.length === 0) return;
    const unused = idle.map((lane) => readers[lane]);
    giveReaders(this.#matchable(), unused);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #matches(
    argument: string,
    chains: readonly Hashes[],
    options: MatchOptions | undefined,
    call: CallOptions | undefined,
  ): Promise<PrefixMatch[]> {
    const index = this.#matchable();
    const group = groupOf(options);
    const checked = Array.from(chains, (chain, i) =>
      checkHashes(argument === 'chains' ? `chains[${i}]` : argument, chain, index.keyWidth),
    );
    if (checked.length === 0) return [];
    const done = await this.#runMatching(index, matchPieces(checked, index.keyWidth, group), call);
    let next = 0;
    return this.#named(unpackMatches(done), () => isApproximate(checked[next++], index.keyWidth));
  }

  async #both(
    prompts: readonly ListedPrompt[],
    options: HashOptions & HashAndMatchOptions,
    list: boolean,
    call: CallOptions | undefined,
  ): Promise<HashedMatch[]> {
    const index = this.#matchable();
    const { hashes = false, group: _, ...hashing } = options;
    boolean('hashes', hashes);
    const pieces = hashPieces(prompts, hashing, list, { group: groupOf(options), hashes });
    if (pieces.length === 0) return [];
    const done = await this.#runMatching(index, pieces, call);
    const { width } = done[0].rest as HashDone;
    const found = this.#named(unpackMatches(done), () => width > index.keyWidth);
    if (!hashes) return found.map((match) => ({ match }));
    const runs = hashResults(done.map(({ arrays, rest }) => ({ arrays: arrays.slice(1), rest })));
    return found.map((match, i) => ({ match, hashes: runs[i] }));
  }

  #matchable(): PrefixIndex {
    if (!this.#index) throw errors.notSupported('matching without an index', 'make the pool with { index }');
    return this.#index;
  }

  /** An instance removed meanwhile may have left its number to another, which must not get its blocks: so it runs again. */
  async #runMatching(index: PrefixIndex, pieces: Piece[], call: CallOptions | undefined): Promise<Payload[]> {
    const checked = checkedCall(call);
    for (;;) {
      const { removals } = index;
      const done = await this.#scheduler.run(pieces, checked);
      if (index.removals === removals) return done;
    }
  }

  /** Readers know instances by number; the index knows their names. */
  #named(found: Iterable<{ matched: number; rows: Uint32Array }>, approximate: () => boolean): PrefixMatch[] {
    const names: (string | undefined)[] = [];
    return Array.from(found, ({ matched, rows }) => {
      for (let id = names.length; id < rows.length / 4; id++) names.push(this.#index?.instanceName(id));
      return new PrefixMatch(matched, approximate(), rows, names);
    });
  }

  async #hashes(pieces: Piece[], call: CallOptions | undefined): Promise<BlockHashes[]> {
    if (pieces.length === 0) return [];
    return hashResults(await this.#scheduler.run(pieces, checkedCall(call)));
  }
}

function groupOf(options: MatchOptions | undefined): number {
  return integer('group', plainOptions('options', options).group ?? 0, 0, MAX_GROUPS - 1);
}

function checkedCall(call: CallOptions | undefined): CallOptions {
  const { signal, timeoutMs } = plainOptions('call', call);
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw errors.invalidArgument('signal', signal, 'an AbortSignal');
  }
  if (timeoutMs !== undefined) integer('timeoutMs', timeoutMs, 1, MAX_TIMEOUT);
  return { signal, timeoutMs };
}
