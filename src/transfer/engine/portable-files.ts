/** Files as segments of an engine in TypeScript: copied to and from memory, and among each other, through Node's threads. */
import { type FileHandle, open } from 'node:fs/promises';
import type { Descriptor, Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { totalBytes } from '../ranges.js';
import { hold, type Segment, type SegmentTable } from '../segments.js';
import type { MoveReport } from '../transfer.js';

const PIECE_BYTES = 2 ** 20;
/** Memory has lower numbers. */
const FIRST_ID = 0xffff_0000;
const LAST_ID = 0xffff_ffff;

interface File {
  id: number;
  handle: FileHandle;
  length: number;
  writable: boolean;
  holders: number;
  ended?: () => void;
}

/** One side of a record. */
interface Place {
  file?: File;
  memory?: Segment;
  offset: number;
}

export class PortableFiles {
  readonly #memory: SegmentTable;
  readonly #files = new Map<number, File>();
  #next = FIRST_ID;

  constructor(memory: SegmentTable) {
    this.#memory = memory;
  }

  /** `length` undefined: the file's own. A shorter file is made longer, where it may be written. */
  async open(path: string, length: number | undefined, writable: boolean): Promise<{ id: number; length: number }> {
    if (this.#next > LAST_ID) throw errors.outOfMemory('file numbers', LAST_ID - FIRST_ID);
    let handle: FileHandle | undefined;
    try {
      // "a+" makes the file where there is none and keeps what it has, but writes at its end only.
      if (writable) await (await open(path, 'a+')).close();
      handle = await open(path, writable ? 'r+' : 'r');
      const own = (await handle.stat()).size;
      const bytes = length ?? own;
      if (bytes === 0) throw errors.invalidArgument('path', path, 'a file that is not empty, or used with a length');
      if (own < bytes) {
        if (!writable) throw errors.invalidArgument('options.length', bytes, `at most the file's ${own} bytes`);
        await handle.truncate(bytes);
      }
      const file = { id: this.#next++, handle, length: bytes, writable, holders: 0 };
      this.#files.set(file.id, file);
      return { id: file.id, length: bytes };
    } catch (error) {
      await handle?.close();
      if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
      throw errors.invalidArgument('path', path, `a file that can be opened (${(error as Error).message})`);
    }
  }

  has(id: number): boolean {
    return this.#files.has(id);
  }

  async remove(id: number): Promise<void> {
    const file = this.#files.get(id)!;
    this.#files.delete(id);
    if (file.holders > 0) await new Promise<void>((resolve) => (file.ended = resolve));
    await file.handle.close();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#files.keys()].map((id) => this.remove(id)));
  }

  touches(descriptors: Descriptors): boolean {
    if (this.#files.size === 0) return false;
    for (const { sourceSegment, destinationSegment } of descriptors) {
      if (this.#files.has(sourceSegment) || this.#files.has(destinationSegment)) return true;
    }
    return false;
  }

  /** Copies record after record, until the signal aborts: then it throws the signal's reason, and nothing is written any more. */
  async copy(descriptors: Descriptors, signal: AbortSignal): Promise<MoveReport> {
    const started = performance.now();
    const places = [...descriptors].map((record, index) => this.#places(record, index));
    const files = new Set(places.flatMap(({ from, to }) => [from.file, to.file]).filter((file) => file !== undefined));
    const release = hold(
      places.flatMap(({ from, to }) => [from.memory, to.memory]).filter((item) => item !== undefined),
    );
    for (const file of files) file.holders++;
    try {
      const buffer = new Uint8Array(PIECE_BYTES);
      for (const { from, to, length } of places) {
        for (let at = 0; at < length; at += PIECE_BYTES) {
          signal.throwIfAborted();
          await move(from, to, at, Math.min(PIECE_BYTES, length - at), buffer);
        }
      }
    } finally {
      release();
      for (const file of files) if (--file.holders === 0) file.ended?.();
    }
    return { bytes: totalBytes(descriptors), verifiedBytes: 0, milliseconds: performance.now() - started };
  }

  #places(record: Descriptor, index: number): { from: Place; to: Place; length: number } {
    const name = `descriptors[${index}]`;
    const { length } = record;
    const from = this.#place(`${name}.source`, record.sourceSegment, record.sourceOffset, length);
    const to = this.#place(`${name}.destination`, record.destinationSegment, record.destinationOffset, length);
    if (to.file && !to.file.writable) {
      throw errors.segment(`${name}.destinationSegment`, record.destinationSegment, 'the file was opened for reading');
    }
    return { from, to, length };
  }

  #place(name: string, id: number, offset: number, length: number): Place {
    const file = this.#files.get(id);
    const memory = file ? undefined : this.#memory.get(id, `${name}Segment`);
    const size = (file ?? memory)!.length;
    if (offset > size || length > size - offset) {
      throw errors.segment(`${name}Offset`, offset, `the segment has ${size} bytes`);
    }
    return { file, memory, offset };
  }
}

async function move(from: Place, to: Place, at: number, length: number, buffer: Uint8Array): Promise<void> {
  const view = ({ memory, offset }: Place) => memory?.memory.subarray(offset + at, offset + at + length);
  const bytes = view(from) ?? view(to) ?? buffer.subarray(0, length);
  if (from.file) await whole(from.file, 'read', bytes, from.offset + at);
  if (to.file) await whole(to.file, 'write', bytes, to.offset + at);
}

async function whole(file: File, operation: 'read' | 'write', bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const moved =
      operation === 'read'
        ? (await file.handle.read(bytes, done, bytes.length - done, position + done)).bytesRead
        : (await file.handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
    if (moved === 0) throw errors.segment('segment', file.id, 'the file is shorter than it was');
    done += moved;
  }
}
