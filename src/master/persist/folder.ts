/**
 * The folder of a master's persistent state and the files in it. File n of the log follows snapshot n, which has all that
 * was before it; both are kept for as many snapshots as are retained, so that a damaged one has another behind it.
 *
 *     format          names the folder as ours, and the version of what is in it
 *     lock            the master that uses it (lock.ts)
 *     log-00000007    frames of records (frames.ts, records.ts)
 *     snapshot-00000007, and .tmp while it is written
 *     damaged-…       what could not be used, moved out of the way
 */
import { type FileHandle, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errors, MooncakeError } from '../../core/errors.js';
import { makeFolder } from '../../folders.js';
import { FRAME_BYTES, sealFrame } from './frames.js';
import { RECORD } from './records.js';
import { within } from './within.js';

const FORMAT = 'mooncake-ts master 1\n';
const NAME = /^(log|snapshot)-(\d{8})$/;

/** A file that frames are appended to. A disk that does not answer in time has failed. */
export class DataFile {
  readonly number: number;
  /** Bytes that are durable. */
  bytes = 0;
  readonly #handle: FileHandle;
  readonly #timeoutMs: number;
  #frames = 0;
  #isOpen = true;

  constructor(handle: FileHandle, number: number, timeoutMs: number) {
    this.#handle = handle;
    this.number = number;
    this.#timeoutMs = timeoutMs;
  }

  /** Writes a frame (records behind FRAME_BYTES of room); it is durable when this resolves, unless `sync` is false. */
  async append(frame: Buffer, sync = true): Promise<void> {
    sealFrame(frame, this.number, this.#frames++);
    await within(this.#timeoutMs, 'a write', this.#write(frame));
    if (sync) await this.sync();
    this.bytes += frame.length;
  }

  sync(): Promise<void> {
    return within(this.#timeoutMs, 'fdatasync', this.#handle.datasync());
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await within(this.#timeoutMs, 'closing a file', this.#handle.close());
  }

  async #write(frame: Buffer): Promise<void> {
    for (let at = 0; at < frame.length; ) {
      const { bytesWritten } = await this.#handle.write(frame, at, frame.length - at);
      at += bytesWritten;
    }
  }
}

export class DataFolder {
  readonly path: string;
  readonly #timeoutMs: number;

  private constructor(path: string, timeoutMs: number) {
    this.path = path;
    this.#timeoutMs = timeoutMs;
  }

  /** Makes the folder where there is none. Throws ERR_DATA_DIR where it is of something else. */
  static async open(path: string, timeoutMs: number): Promise<DataFolder> {
    const folder = new DataFolder(path, timeoutMs);
    try {
      makeFolder(path);
      const names = await readdir(path);
      const format = await readFile(folder.#at('format'), 'utf8').catch(() => undefined);
      if (format === undefined) {
        const foreign = names.filter((name) => name !== 'lock' && name !== 'format.tmp');
        if (foreign.length > 0) {
          const some = foreign.slice(0, 3).join(', ');
          throw errors.dataDir(path, `it has other things in it (${some}); give one that is empty or does not exist`);
        }
        await writeFile(folder.#at('format.tmp'), FORMAT, { flush: true } as object);
        await rename(folder.#at('format.tmp'), folder.#at('format'));
        await folder.sync();
      } else if (format !== FORMAT) {
        const what = JSON.stringify(format.slice(0, 64));
        throw errors.dataDir(path, `its format is ${what}, not that of this version; start the version that wrote it`);
      }
    } catch (error) {
      throw folder.problem(error);
    }
    return folder;
  }

  /** An error of the file system as one of the folder. */
  problem(error: unknown): MooncakeError {
    if (error instanceof MooncakeError) return error;
    return errors.dataDir(this.path, error instanceof Error ? error.message : String(error), error);
  }

  log(number: number): string {
    return this.#at(name('log', number));
  }

  snapshot(number: number): string {
    return this.#at(name('snapshot', number));
  }

  /** Numbers of the files of a kind, in order. */
  async numbers(kind: 'log' | 'snapshot'): Promise<number[]> {
    const found = (await readdir(this.path)).map((file) => NAME.exec(file)).filter((match) => match?.[1] === kind);
    return found.map((match) => Number(match![2])).sort((a, b) => a - b);
  }

  async createLog(number: number): Promise<DataFile> {
    const file = new DataFile(await open(this.log(number), 'wx'), number, this.#timeoutMs);
    await this.sync().catch((error) => this.dropLog(file, error));
    return file;
  }

  /** Takes a log away that was made and not begun, because of an error, which it throws. */
  async dropLog(file: DataFile, error: unknown): Promise<never> {
    await file.close();
    await this.remove(file.number);
    throw error;
  }

  /** A snapshot that is not there before `finishSnapshot`. */
  async createSnapshot(number: number): Promise<DataFile> {
    return new DataFile(await open(`${this.snapshot(number)}.tmp`, 'w'), number, this.#timeoutMs);
  }

  async finishSnapshot(file: DataFile): Promise<void> {
    await file.sync();
    await file.close();
    await rename(`${this.snapshot(file.number)}.tmp`, this.snapshot(file.number));
    await this.sync();
  }

  async dropSnapshot(file: DataFile): Promise<void> {
    await file.close();
    await rm(`${this.snapshot(file.number)}.tmp`, { force: true });
  }

  /** Ends a log that a dead master left: cuts off the frame that it was at, which nobody was told of. */
  async finishLog(number: number, good: number, frames: number): Promise<void> {
    await truncate(this.log(number), good);
    const handle = await open(this.log(number), 'a');
    try {
      const end = Buffer.alloc(FRAME_BYTES + 1);
      end[FRAME_BYTES] = RECORD.end;
      sealFrame(end, number, frames);
      await handle.write(end);
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }

  async remove(log: number): Promise<void> {
    await rm(this.log(log), { force: true });
  }

  /** Deletes what only snapshots before the last `retained` need. */
  async clean(retained: number): Promise<void> {
    const snapshots = await this.numbers('snapshot');
    const oldest = snapshots.at(-retained) ?? 0;
    for (const number of snapshots) if (number < oldest) await rm(this.snapshot(number), { force: true });
    for (const number of await this.numbers('log')) if (number < oldest) await rm(this.log(number), { force: true });
  }

  /** Moves files out of the way; the folder that they are in then. */
  async setAside(files: readonly string[]): Promise<string> {
    const aside = this.#at(`damaged-${new Date().toISOString().replaceAll(':', '.')}`);
    makeFolder(aside);
    for (const file of files) await rename(file, join(aside, file.slice(this.path.length + 1)));
    await this.sync();
    return aside;
  }

  /** Makes the names in the folder durable. */
  async sync(): Promise<void> {
    const handle = await open(this.path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  #at(file: string): string {
    return join(this.path, file);
  }
}

const name = (kind: string, number: number) => `${kind}-${String(number).padStart(8, '0')}`;
