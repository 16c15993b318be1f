/**
 * The log: what the books tell, in the order in which it happened. Calls that come while a frame is being written share the
 * next one, so however many wait, one fdatasync serves them all (group commit). An answer may leave once `settled`.
 *
 *   books ─► frame being filled ─► frame being written ─► durable        at most one write is under way
 *
 * Where a write fails nothing is known of the file's end any more: the log takes no record until another file, and a
 * snapshot that makes up for what is lost, are durable (persistence.ts). Until then whoever waits is refused.
 */
import type { MooncakeError } from '../../core/errors.js';
import type { Books } from '../books.js';
import type { Journal } from '../journal.js';
import type { Segment } from '../segments.js';
import type { ByteWriter } from './bytes.js';
import type { DataFile } from './folder.js';
import { MAX_FRAME } from './frames.js';
import { KIND, RecordWriter } from './records.js';

interface Waiter {
  /** Number of the record from which on it may go. */
  after: number;
  resolve(): void;
  reject(error: MooncakeError): void;
}

interface Frame {
  file: DataFile;
  bytes: ByteWriter;
  /** Number of its last record. */
  last: number;
}

/** Records that wait for a disk that does not answer: more than that, and the disk has failed. */
const MOST_WAITING = MAX_FRAME / 2;

export class Log implements Journal {
  readonly #records: RecordWriter;
  readonly #onFailure: (error: unknown) => MooncakeError;
  #file: DataFile;
  /** The file of the last frame that was written, which may still be the one before. */
  #open: DataFile;
  /** Frames of files before this one that are still to be written. */
  #sealed: Frame[] = [];
  #spare: ByteWriter | undefined;
  #waiters: Waiter[] = [];
  #written = 0;
  #durable = 0;
  #begun = 0;
  #writing: Promise<void> | undefined;
  #failure: MooncakeError | undefined;
  /** It failed, and the file that follows is not yet all that is needed. */
  #recovering = false;

  constructor(books: Books, file: DataFile, wall: () => number, onFailure: (error: unknown) => MooncakeError) {
    this.#records = new RecordWriter(books, wall);
    this.#onFailure = onFailure;
    this.#file = this.#open = file;
    this.#begin(KIND.log);
  }

  /** Why nothing can be made durable now. */
  get failure(): MooncakeError | undefined {
    return this.#failure;
  }

  /** It failed, and takes records again that do not count before `recovered`. */
  get isRecovering(): boolean {
    return this.#recovering;
  }

  /** Nothing was told since its file was begun. */
  get isEmpty(): boolean {
    return this.#written === this.#begun;
  }

  /** Bytes of the file that is being written. */
  get bytes(): number {
    return this.#file.bytes;
  }

  /** Undefined where all that happened is durable; rejects with ERR_DATA_DIR where it cannot be. */
  settled(): Promise<void> | undefined {
    if (this.#failure) return Promise.reject(this.#failure);
    const after = this.#written;
    if (after === this.#durable) return undefined;
    return new Promise((resolve, reject) => this.#waiters.push({ after, resolve, reject }));
  }

  /** What happens from now on goes to another file. */
  rotate(next: DataFile): void {
    this.#records.end();
    this.#seal(this.#file);
    this.#file = next;
    this.#begin(KIND.log);
  }

  /** After a failure: records are taken again, into this file. They count when `recovered` says so. */
  recover(next: DataFile): void {
    this.#drop();
    this.#recovering = true;
    this.#file = next;
    this.#begin(KIND.recovery);
  }

  recovered(): void {
    this.#failure = undefined;
    this.#recovering = false;
  }

  /** Resolves when all that was told so far is durable, or nothing can be. */
  async flush(): Promise<void> {
    const after = this.#written;
    if (after === this.#durable || !this.#takes) return;
    await new Promise<void>((resolve) => this.#waiters.push({ after, resolve, reject: () => resolve() }));
  }

  /** Ends the file, which takes nothing more. */
  async close(): Promise<void> {
    if (!this.#failure) {
      this.#records.end();
      this.#told();
    }
    await this.#writing;
    // What is durable is; whoever closes cannot do more for a disk that does not answer.
    await Promise.allSettled([this.#open.close(), this.#file.close()]);
  }

  mounted(segment: Segment): void {
    if (!this.#takes) return;
    this.#records.segment(segment);
    this.#told();
  }

  unmounted(segment: Segment): void {
    if (!this.#takes) return;
    this.#records.unmounted(segment);
    this.#told();
  }

  reserved(handles: readonly number[], until: number): void {
    if (!this.#takes) return;
    for (const handle of handles) this.#records.reserved(handle, until);
    this.#told();
  }

  released(handles: readonly number[]): void {
    if (!this.#takes) return;
    for (const handle of handles) this.#records.released(handle);
    this.#told();
  }

  kept(id: number): void {
    if (!this.#takes) return;
    this.#records.object(id);
    this.#told();
  }

  lost(id: number): void {
    if (!this.#takes) return;
    this.#records.lost(id);
    this.#told();
  }

  get #takes(): boolean {
    return !this.#failure || this.#recovering;
  }

  #begin(kind: number): void {
    this.#records.start(kind);
    this.#told();
    this.#begun = this.#written;
  }

  #told(): void {
    this.#written++;
    if (this.#records.length > MOST_WAITING) this.#fail(new Error('the disk does not take what is to be written'));
    // Not at once: what else this turn of the event loop brings goes along.
    this.#writing ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#write());
  }

  #seal(file: DataFile): void {
    if (this.#records.length === 0) return;
    const spare = this.#spare;
    this.#spare = undefined;
    this.#sealed.push({ file, bytes: this.#records.take(spare), last: this.#written });
  }

  async #write(): Promise<void> {
    try {
      for (;;) {
        if (this.#sealed.length === 0) this.#seal(this.#file);
        const frame = this.#sealed.shift();
        if (!frame) break;
        if (frame.file !== this.#open) {
          await this.#open.close();
          this.#open = frame.file;
        }
        await frame.file.append(frame.bytes.view());
        this.#spare = frame.bytes;
        if (this.#takes) this.#settle(frame.last);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#writing = undefined;
  }

  #settle(last: number): void {
    this.#durable = last;
    const ready = this.#waiters.findIndex(({ after }) => after > last);
    for (const waiter of this.#waiters.splice(0, ready < 0 ? this.#waiters.length : ready)) waiter.resolve();
  }

  #fail(error: unknown): void {
    this.#recovering = false;
    this.#drop();
    this.#failure = this.#onFailure(error);
    // Nothing is written to it any more, and nobody waits for it.
    this.#open.close().catch(() => {});
    for (const { reject } of this.#waiters.splice(0)) reject(this.#failure);
  }

  #drop(): void {
    this.#sealed = [];
    this.#records.take(this.#spare);
    this.#spare = undefined;
  }
}
