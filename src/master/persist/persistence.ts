/**
 * A master's persistent state: a folder in which what the books tell is durable before it is acknowledged, and from which
 * they are restored (docs/persistence.md).
 *
 *   open: lock ─► restore ─► a log of its own     then: log, snapshots from time to time     close: a last snapshot
 */
import { integer, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import { Books } from '../books.js';
import { type MetadataOptions, resolveOptions } from '../options.js';
import { MetadataService } from '../service.js';
import { DataFolder } from './folder.js';
import { FolderLock } from './lock.js';
import { Log } from './log.js';
import { type Damage, type Restored, restore } from './restore.js';
import { Snapshot } from './snapshot.js';

export interface PersistenceOptions {
  dataDir: string;
  /** Longest time between two snapshots while anything changes, ms. Default 600,000. */
  snapshotIntervalMs?: number;
  /** Snapshots that are kept, 1 to 1,000. Default 2. */
  snapshotRetention?: number;
  /** A disk that takes longer for a write, ms, has failed. Default 30,000. */
  diskTimeoutMs?: number;
  /** Wall clock, ms since 1970. Default `Date.now`. */
  wallNow?: () => number;
  onEvent?: (event: PersistenceEvent) => void;
}

export type PersistenceEvent =
  | { what: 'data-restored'; objects: number; segments: number; dropped: number; bytes: number; ms: number }
  | ({ what: 'data-damaged' } & Damage)
  | { what: 'log-failing'; why: string }
  | { what: 'log-recovered' }
  | { what: 'snapshot-failed'; why: string };

export interface PersistenceFigures {
  /** Bytes that a restart would read, log and snapshot. */
  logBytes: number;
  snapshotBytes: number;
  /** Since the last snapshot was finished, or the folder opened. */
  snapshotAgeMs: number;
  snapshots: number;
  /** What reading the folder took at the start. */
  replayMs: number;
  /** Nothing can be made durable now: calls that change something are refused. */
  isFailing: boolean;
}

const CHECK_MS = 1000;
/** What failed is tried again after so long. */
const RETRY_MS = 5000;
/** A log that outgrows the last snapshot by this much is followed by another. */
const LOG_SLACK = 64 * 2 ** 20;
/** The last snapshot, at a clean stop, takes at most so long: without it the log is read instead. */
const LAST_SNAPSHOT_MS = 60_000;

export class Persistence {
  readonly service: MetadataService;
  readonly #books: Books;
  readonly #folder: DataFolder;
  readonly #lock: FolderLock;
  readonly #log: Log;
  readonly #options: Required<PersistenceOptions>;
  readonly #closing = new AbortController();
  #next: number;
  #snapshotting: Promise<void> | undefined;
  #timer: NodeJS.Timeout;
  #figures: { snapshotBytes: number; snapshots: number; snapshotAt: number; replayMs: number };
  /** Bytes of logs before the current one that a restart would read. */
  #logBytesBefore: number;
  #retryAt = 0;

  private constructor(
    folder: DataFolder,
    lock: FolderLock,
    restored: Restored,
    log: Log,
    options: Required<PersistenceOptions>,
  ) {
    this.#folder = folder;
    this.#lock = lock;
    this.#log = log;
    this.#options = options;
    this.#books = restored.books;
    this.service = new MetadataService(undefined, restored.books);
    this.#next = restored.next + 1;
    this.#logBytesBefore = restored.bytes - restored.snapshotBytes;
    this.#figures = {
      snapshotBytes: restored.snapshotBytes,
      snapshots: 0,
      snapshotAt: performance.now(),
      replayMs: restored.ms,
    };
    restored.books.journal = log;
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
    this.#timer.unref();
  }

  /**
   * A service with what the folder holds, and from then on keeps. Throws ERR_DATA_DIR where the folder is another master's or
   * no master's, or cannot be read or written; ERR_INVALID_ARGUMENT.
   */
  static async open(options: PersistenceOptions, metadata?: MetadataOptions): Promise<Persistence> {
    const checked = resolve(options);
    const { dataDir, wallNow, onEvent, diskTimeoutMs } = checked;
    const resolved = resolveOptions(metadata);
    const folder = await DataFolder.open(dataDir, diskTimeoutMs);
    const lock = await FolderLock.take(dataDir);
    try {
      const tell = (damage: Damage) => onEvent({ what: 'data-damaged', ...damage });
      const restored = await restore(folder, () => new Books(resolved), wallNow, tell);
      const file = await folder.createLog(restored.next);
      const log = new Log(restored.books, file, wallNow, (error) => {
        const problem = folder.problem(error);
        onEvent({ what: 'log-failing', why: problem.message });
        return problem;
      });
      const persistence = new Persistence(folder, lock, restored, log, checked);
      const { objects, segments, dropped, bytes, ms } = restored;
      if (bytes > 0) onEvent({ what: 'data-restored', objects, segments, dropped, bytes, ms });
      await log.flush();
      return persistence;
    } catch (error) {
      await lock.release();
      throw folder.problem(error);
    }
  }

  /** Throws ERR_DATA_DIR where nothing can be made durable now: what changes something must not begin. */
  enter(): void {
    if (this.#log.failure) throw this.#log.failure;
  }

  /** Undefined where all that happened so far is durable; else resolves when it is, or rejects with ERR_DATA_DIR. */
  settled(): Promise<void> | undefined {
    return this.#log.settled();
  }

  figures(): PersistenceFigures {
    const { snapshotAt, ...rest } = this.#figures;
    return {
      ...rest,
      logBytes: this.#logBytesBefore + this.#log.bytes,
      snapshotAgeMs: performance.now() - snapshotAt,
      isFailing: this.#log.failure !== undefined,
    };
  }

  /** Writes a snapshot; resolves when it is durable. Where one is being written, that one. */
  snapshot(): Promise<void> {
    this.#snapshotting ??= this.#snapshot(this.#closing.signal).finally(() => {
      this.#snapshotting = undefined;
    });
    return this.#snapshotting;
  }

  /** A last snapshot, where anything happened since the one before; then the folder is another's. Idempotent. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    clearInterval(this.#timer);
    this.#closing.abort();
    await this.#snapshotting?.catch(() => {});
    if (!this.#log.failure && (this.#logBytesBefore > 0 || !this.#log.isEmpty)) {
      await this.#snapshot(AbortSignal.timeout(LAST_SNAPSHOT_MS)).catch((error) => this.#tellFailed(error));
    }
    this.#books.journal = undefined;
    await this.#log.close();
    await this.#lock.release();
  }

  #check(): void {
    if (this.#snapshotting || performance.now() < this.#retryAt) return;
    const { snapshotAt, snapshotBytes } = this.#figures;
    const isOld = !this.#log.isEmpty && performance.now() - snapshotAt > this.#options.snapshotIntervalMs;
    const isLong = this.#logBytesBefore + this.#log.bytes > snapshotBytes + LOG_SLACK;
    if (!this.#log.failure && !isOld && !isLong) return;
    this.snapshot().catch((error) => {
      this.#retryAt = performance.now() + RETRY_MS;
      if (!this.#closing.signal.aborted) this.#tellFailed(error);
    });
  }

  #tellFailed(error: unknown): void {
    this.#options.onEvent({ what: 'snapshot-failed', why: this.#folder.problem(error).message });
  }

  /** After a failure of the log, it is the snapshot that makes its next file count. */
  async #snapshot(signal: AbortSignal): Promise<void> {
    const number = this.#next;
    const log = await this.#folder.createLog(number);
    // A log that nothing is written to must not stay between others.
    const file = await this.#folder.createSnapshot(number).catch((error) => this.#folder.dropLog(log, error));
    this.#next++;
    const failed = this.#log.failure !== undefined;
    const logBytes = this.#logBytesBefore + this.#log.bytes;
    try {
      // In one turn: the log has all that the snapshot may miss.
      if (failed) this.#log.recover(log);
      else this.#log.rotate(log);
      const snapshot = new Snapshot(this.#books, file, this.#options.wallNow);
      this.#logBytesBefore = logBytes;
      await snapshot.write(signal);
      await this.#log.flush();
      if (failed ? !this.#log.isRecovering : this.#log.failure) throw this.#log.failure;
      await this.#folder.finishSnapshot(file);
    } catch (error) {
      await this.#folder.dropSnapshot(file);
      throw error;
    }
    if (failed) {
      this.#log.recovered();
      this.#options.onEvent({ what: 'log-recovered' });
    }
    this.#logBytesBefore = 0;
    const { snapshots, replayMs } = this.#figures;
    this.#figures = { snapshotBytes: file.bytes, snapshots: snapshots + 1, snapshotAt: performance.now(), replayMs };
    await this.#folder.clean(this.#options.snapshotRetention);
  }
}

function resolve(options: PersistenceOptions): Required<PersistenceOptions> {
  const { dataDir, snapshotIntervalMs = 600_000, snapshotRetention = 2, diskTimeoutMs = 30_000, ...rest } = options;
  const { wallNow = Date.now, onEvent } = rest;
  if (string('dataDir', dataDir) === '') throw errors.invalidArgument('dataDir', dataDir, 'the path of a folder');
  return {
    dataDir,
    snapshotIntervalMs: integer('snapshotIntervalMs', snapshotIntervalMs, 1, 2 ** 31 - 1),
    snapshotRetention: integer('snapshotRetention', snapshotRetention, 1, 1000),
    diskTimeoutMs: integer('diskTimeoutMs', diskTimeoutMs, 1, 2 ** 31 - 1),
    wallNow,
    onEvent: onEvent ?? (() => {}),
  };
}
