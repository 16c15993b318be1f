/**
 * Memory of other programs that has a name in the file system, such as theirs below /dev/shm, mapped to be lent. Bytes of a file are
 * lent once at a time: two segments over the same bytes would have each other's objects.
 */
import { constants, type FileHandle, open } from 'node:fs/promises';
import { errors } from '../../core/errors.js';
import type { Uuid } from '../../master/api.js';
import { loadAddon, whyNoAddon } from '../../native/load.js';
import { keepInPlace } from '../../transfer/engine/memory.js';
import { attempt } from '../../transfer/engine/native-errors.js';

/** A part of a file. */
export interface FileRange {
  readonly path: string;
  /** At a page's start. */
  readonly offset: number;
  readonly length: number;
}

interface Place {
  /** Device and inode: a file may have several names. */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

export interface MappedRange extends Place {
  readonly memory: Uint8Array;
}

/**
 * @throws ERR_INVALID_ARGUMENT for what is no file, no page's start, or beyond the file's end; ERR_PEER where it cannot be opened;
 *   ERR_NOT_SUPPORTED without the accelerator
 */
export async function mapRange({ path, offset, length }: FileRange): Promise<MappedRange> {
  const loaded = loadAddon();
  const { addon } = loaded;
  if (!addon) throw errors.notSupported('mapping memory by its path', whyNoAddon(loaded));
  let handle: FileHandle;
  try {
    // What waits for another end, such as a pipe, must not.
    handle = await open(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    throw errors.peer(path, (error as Error).message, error);
  }
  try {
    const { dev, ino } = await handle.stat();
    const memory = new Uint8Array(attempt(path, () => addon.mapFile(handle.fd, offset, length)));
    keepInPlace(memory);
    return { file: `${dev}:${ino}`, offset, length, memory };
  } finally {
    await handle.close();
  }
}

/** A range that is lent, or is about to be. */
export interface LentRange {
  readonly place: Place;
  segment?: Uuid;
}

export class MappedRanges {
  readonly #lent = new Set<LentRange>();

  /** Those that have bytes of it. */
  overlapping({ file, offset, length }: Place): LentRange[] {
    return [...this.#lent].filter(
      ({ place }) => place.file === file && place.offset < offset + length && offset < place.offset + place.length,
    );
  }

  add({ file, offset, length }: Place): LentRange {
    const lent = { place: { file, offset, length } };
    this.#lent.add(lent);
    return lent;
  }

  delete(lent: LentRange): void {
    this.#lent.delete(lent);
  }

  /** The segment is gone. */
  forget(segment: Uuid): void {
    for (const lent of this.#lent) if (lent.segment === segment) this.#lent.delete(lent);
  }
}
