/**
 * A snapshot: the records of all that is, written while the service goes on, slice by slice. It needs no copy of the
 * tables: what changes meanwhile is in the log that began with it, which is read after it.
 */
import type { Books } from '../books.js';
import type { ByteWriter } from './bytes.js';
import type { DataFile } from './folder.js';
import { KIND, RecordWriter } from './records.js';
import { within } from './within.js';

/** Work after which the event loop gets a turn, and how many objects are taken at once. */
const SLICE_MS = 3;
const SLICE_OBJECTS = 256;
const FRAME = 2 ** 18;
/** Segments that come and go without end must not keep a snapshot from its own: it fails, and is tried again. */
const UNMOUNT_MS = 60_000;

const turn = () => new Promise((resolve) => setImmediate(resolve));

export class Snapshot {
  readonly #books: Books;
  readonly #file: DataFile;
  readonly #records: RecordWriter;
  #spare: ByteWriter | undefined;
  #slice = performance.now();

  /** What is here, in one piece, is of the moment at which the log begins: segments. */
  constructor(books: Books, file: DataFile, wall: () => number) {
    this.#books = books;
    this.#file = file;
    this.#records = new RecordWriter(books, wall);
    this.#records.start(KIND.snapshot);
    for (const segment of books.segments.all) this.#records.segment(segment);
  }

  /** Writes the rest; it is durable once the file is synced. Throws what the signal says when it is aborted. */
  async write(signal: AbortSignal): Promise<void> {
    const { table, puts, keptBack, copying, promotion, segments, diskCopies, departed, unmounts, options } =
      this.#books;
    for (const put of puts.values()) {
      for (const handle of put.handles) this.#records.reserved(handle, put.startedAt + options.putReleaseMs);
      await this.#pause(signal);
    }
    for (const reserved of [copying.reserved(), promotion.reserved(), keptBack.all()]) {
      for (const { handle, until } of reserved) {
        if (segments.has(handle)) this.#records.reserved(handle, until);
        await this.#pause(signal);
      }
    }
    for (let cursor = 0; ; ) {
      const slice = table.scan(cursor, SLICE_OBJECTS);
      for (const id of slice.ids) if (this.#books.isReadable(id) && !diskCopies.isAlone(id)) this.#records.object(id);
      await this.#pause(signal);
      cursor = slice.cursor;
      if (cursor === 0) break;
    }
    // What was claimed in segments that went meanwhile is all there when they are gone.
    if (unmounts.any) await within(UNMOUNT_MS, 'unmounting segments', unmounts.ended);
    for (const segment of [...departed.all]) {
      this.#records.departed(segment);
      await this.#pause(signal);
    }
    this.#records.end();
    await this.#flush();
  }

  async #pause(signal: AbortSignal): Promise<void> {
    if (this.#records.length >= FRAME) await this.#flush();
    else if (performance.now() - this.#slice > SLICE_MS) await turn();
    else return;
    signal.throwIfAborted();
    this.#slice = performance.now();
  }

  async #flush(): Promise<void> {
    const frame = this.#records.take(this.#spare);
    await this.#file.append(frame.view(), false);
    this.#spare = frame;
  }
}
