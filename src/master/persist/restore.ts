/**
 * Finds the newest state in a folder that can be read whole: a snapshot and every log from it on. Of the last log the end may
 * be missing, which a master that died was writing and told nobody of; whatever else is missing or damaged makes that
 * state worth nothing, since bytes that it speaks of may have been given to others meanwhile. Then an older snapshot is
 * tried, with more of the logs; where none can be used, all is moved aside and the books begin empty.
 */
import { open } from 'node:fs/promises';
import { MooncakeError } from '../../core/errors.js';
import type { Books } from '../books.js';
import type { DataFolder } from './folder.js';
import { type FileEnd, FRAME_BYTES, readFrames } from './frames.js';
import { KIND, RECORD } from './records.js';
import { Replay } from './replay.js';
import { type Settled, settle } from './settle.js';

export interface Restored extends Settled {
  books: Books;
  /** Number of the next log. */
  next: number;
  /** Bytes that were read, and milliseconds that it all took. */
  bytes: number;
  ms: number;
  /** Bytes of the snapshot that it began with. */
  snapshotBytes: number;
}

export interface Damage {
  /** What is wrong, with the file and the place. */
  why: string;
  /** Where the files are now. */
  aside: string;
  /** Nothing could be read. */
  lost: boolean;
}

interface Base {
  /** Number of the snapshot, and of the first log; 1 without a snapshot: the beginning. */
  number: number;
  hasSnapshot: boolean;
}

class Unusable extends Error {}

export async function restore(
  folder: DataFolder,
  makeBooks: () => Books,
  wall: () => number,
  onDamage: (damage: Damage) => void,
): Promise<Restored> {
  const started = performance.now();
  const snapshots = await folder.numbers('snapshot');
  const logs = await startedLogs(folder);
  const bases: Base[] = snapshots.map((number) => ({ number, hasSnapshot: true })).reverse();
  if (logs[0] === 1) bases.push({ number: 1, hasSnapshot: false });
  const bad: string[] = [];
  const reasons: string[] = [];
  for (const base of bases) {
    try {
      const restored = await attempt(folder, base, logs, snapshots, makeBooks(), wall());
      if (bad.length > 0) onDamage({ why: reasons.join('; '), aside: await folder.setAside(bad), lost: false });
      return { ...restored, ms: performance.now() - started };
    } catch (error) {
      if (!(error instanceof Unusable)) throw folder.problem(error);
      reasons.push(error.message);
      if (base.hasSnapshot) bad.push(folder.snapshot(base.number));
    }
  }
  const nothing = {
    books: makeBooks(),
    objects: 0,
    segments: 0,
    dropped: 0,
    next: 1,
    bytes: 0,
    snapshotBytes: 0,
    ms: 0,
  };
  if (logs.length === 0 && bases.length === 0) return nothing;
  if (bases.length === 0) reasons.push(`${folder.log(logs[0])} has no snapshot in front of it`);
  const files = [...bad, ...logs.map((number) => folder.log(number))];
  onDamage({ why: reasons.join('; '), aside: await folder.setAside(files), lost: true });
  return nothing;
}

/** The logs in order, but for one that was made and not begun. */
async function startedLogs(folder: DataFolder): Promise<number[]> {
  const logs = await folder.numbers('log');
  const last = logs.at(-1);
  if (last === undefined) return logs;
  const { frames, damaged } = await readFrames(folder.log(last), last, () => {});
  if (frames > 0 || damaged) return logs;
  await folder.remove(last);
  return logs.slice(0, -1);
}

async function attempt(
  folder: DataFolder,
  base: Base,
  all: readonly number[],
  snapshots: readonly number[],
  books: Books,
  wallNow: number,
) {
  const replay = new Replay(books, wallNow);
  let bytes = 0;
  let snapshotBytes = 0;
  if (base.hasSnapshot) {
    const end = await read(replay, folder.snapshot(base.number), base.number);
    if (end.good < end.size || !replay.isEnded) throw broken(folder.snapshot(base.number), end);
    snapshotBytes = end.good;
    bytes += end.good;
  }
  const logs = all.filter((number) => number >= base.number);
  let next = base.number;
  for (const [i, number] of logs.entries()) {
    const path = folder.log(number);
    if (number !== base.number + i) throw new Unusable(`${folder.log(base.number + i)} is missing`);
    const end = await read(replay, path, number);
    bytes += end.good;
    next = number + 1;
    if (replay.isEnded && end.good === end.size) continue;
    // After a failure, a log counts once it has a snapshot: nothing in this one was told to anybody.
    const following = logs[i + 1];
    const isLast =
      following === undefined ||
      ((await kindOf(folder.log(following))) === KIND.recovery && !snapshots.some((snapshot) => snapshot >= following));
    if (end.damaged || replay.isEnded || !isLast) throw broken(path, end);
    await folder.finishLog(number, end.good, end.frames);
    for (const tentative of logs.slice(i + 1)) await folder.remove(tentative);
    break;
  }
  const settled = await settle(replay, wallNow);
  return { books, ...settled, next, bytes, snapshotBytes };
}

async function read(replay: Replay, path: string, number: number): Promise<FileEnd> {
  replay.startFile();
  try {
    return await readFrames(path, number, (records) => replay.frame(records));
  } catch (error) {
    if (error instanceof MooncakeError || (error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new Unusable(`${path}: ${(error as Error).message}`);
    }
    throw error;
  }
}

/** Kind of a log, by its first record. */
async function kindOf(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(FRAME_BYTES + 3);
    await file.read(head, 0, head.length, 0);
    return head[FRAME_BYTES] === RECORD.start ? head[FRAME_BYTES + 2] : 0;
  } finally {
    await file.close();
  }
}

function broken(path: string, { good, size, damaged }: FileEnd): Unusable {
  if (good === size) return new Unusable(`${path} ends at byte ${size} before its last record`);
  return new Unusable(`${path} is damaged from byte ${good} on${damaged ? ', and goes on behind it' : ''}`);
}
