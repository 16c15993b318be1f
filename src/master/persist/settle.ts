/**
 * The end of a replay: what was read takes its place. Segments are entered as absent, until their clients say that they
 * are still there; then every copy is allocated where it lies, in the order of offsets, which is what makes an allocation
 * at a given place constant time; what somebody may still be writing to is kept back.
 *
 * Two copies in the same bytes, or one outside its segment, cannot be: should it be, nobody can say which is right, and what
 * comes second is dropped and counted.
 */
import type { Books } from '../books.js';
import type { Segment } from '../segments.js';
import type { Replay } from './replay.js';
import { inTurn, sortBy } from './sort.js';

export interface Settled {
  objects: number;
  segments: number;
  /** Objects that could not be entered. */
  dropped: number;
}

/** Bytes that somebody may write to. */
interface Range {
  readonly offset: number;
  readonly size: number;
  /** Of the service's clock. */
  readonly until: number;
}

const SCAN = 1024;
/** Objects after which the event loop gets a turn. */
const TURN = 2 ** 14;

const turn = () => new Promise((resolve) => setImmediate(resolve));

export async function settle(replay: Replay, wallNow: number): Promise<Settled> {
  const { books } = replay;
  const now = books.begin();
  const segments = new Map<number, Segment>();
  for (const [mounting, { serial, info, client, isMounted }] of replay.segments) {
    const segment = isMounted ? books.segments.restore(info, client, serial) : undefined;
    if (segment) segments.set(mounting, segment);
  }
  const copies = await gather(replay, segments);
  const handles = await allocate(books, copies, reservations(replay, segments, now, wallNow), now);
  const dropped = await enter(books, handles, now);
  books.fence(now + books.options.leaseTtlMs);
  return { objects: books.objects, segments: segments.size, dropped: replay.dropped + dropped };
}

/** Copies in mounted segments: the object, the offset, the allocator's number of the segment. */
class Copies {
  ids = new Float64Array(2 ** 16);
  offsets = new Float64Array(2 ** 16);
  segments = new Uint16Array(2 ** 16);
  count = 0;

  add(id: number, segment: number, offset: number): void {
    if (this.count === this.ids.length) {
      const [ids, offsets, segments] = [this.ids, this.offsets, this.segments];
      this.ids = new Float64Array(2 * this.count);
      this.ids.set(ids);
      this.offsets = new Float64Array(2 * this.count);
      this.offsets.set(offsets);
      this.segments = new Uint16Array(2 * this.count);
      this.segments.set(segments);
    }
    this.ids[this.count] = id;
    this.offsets[this.count] = offset;
    this.segments[this.count++] = segment;
  }
}

/** Visits every object; those that `visit` strikes out meanwhile do no harm. */
async function each({ table }: Books, visit: (id: number) => void): Promise<void> {
  let seen = 0;
  for (let cursor = 0; ; ) {
    const slice = table.scan(cursor, SCAN);
    for (const id of slice.ids) visit(id);
    cursor = slice.cursor;
    if (cursor === 0) return;
    seen += slice.ids.length;
    if (seen < TURN) continue;
    seen = 0;
    await turn();
  }
}

async function gather(replay: Replay, segments: ReadonlyMap<number, Segment>): Promise<Copies> {
  const { books, more } = replay;
  const { table } = books;
  const copies = new Copies();
  await each(books, (id) => {
    const before = copies.count;
    const first = segments.get(table.leaseUntil(id));
    if (first) copies.add(id, first.number, table.handle(id));
    for (const { mounting, offset } of more.at(table.extra(id)) ?? []) {
      const segment = segments.get(mounting);
      if (segment) copies.add(id, segment.number, offset);
    }
    // What its segment took along has no record of its own.
    if (copies.count === before) replay.strike(id);
    else table.setHandle(id, 0);
  });
  return copies;
}

/** What may still be written to, by the allocator's number of the segment. */
function reservations(
  replay: Replay,
  segments: ReadonlyMap<number, Segment>,
  now: number,
  wallNow: number,
): Map<number, Range[]> {
  const { books } = replay;
  const byMounting = new Map<number, Range[]>();
  for (const { mounting, offset, size, until } of replay.reservations.values()) {
    const left = Math.min(until - wallNow, books.options.putReleaseMs);
    if (!(left > 0)) continue;
    const ranges = byMounting.get(mounting) ?? [];
    byMounting.set(mounting, ranges);
    ranges.push({ offset, size, until: now + left });
  }
  const found = new Map<number, Range[]>();
  for (const [mounting, ranges] of byMounting) {
    const segment = segments.get(mounting);
    const gone = replay.segments.get(mounting);
    if (segment) found.set(segment.number, apart(ranges));
    else if (gone) books.departed.note(gone.info, gone.client, ranges, now);
  }
  return found;
}

/** In order; those that overlap, as after a clock that was set back, as one. */
function apart(ranges: readonly Range[]): Range[] {
  const merged: Range[] = [];
  for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    if (!last || last.offset + last.size <= range.offset) {
      merged.push(range);
      continue;
    }
    const end = Math.max(last.offset + last.size, range.offset + range.size);
    merged[merged.length - 1] = {
      offset: last.offset,
      size: end - last.offset,
      until: Math.max(last.until, range.until),
    };
  }
  return merged;
}

/** Allocates every copy; handles of objects that have several. A single one is in the record. */
async function allocate(
  books: Books,
  copies: Copies,
  reserved: ReadonlyMap<number, readonly Range[]>,
  now: number,
): Promise<Map<number, number[]>> {
  const { segments, table } = books;
  const several = new Map<number, number[]>();
  const { alignment } = books.options;
  const order = sortBy(sortBy(inTurn(copies.count), copies.offsets), copies.segments);
  let gaps: Gaps | undefined;
  for (let i = 0; i < order.length; i++) {
    if (i % TURN === 0) await turn();
    const [id, number, offset] = [copies.ids[order[i]], copies.segments[order[i]], copies.offsets[order[i]]];
    if (gaps?.segment.number !== number) {
      gaps?.close();
      gaps = new Gaps(books, segments.at(number), reserved.get(number) ?? [], now);
    }
    const size = table.size(id);
    gaps.upTo(offset, offset + Math.ceil(size / alignment) * alignment);
    const handle = segments.placeAt(gaps.segment, offset, size);
    if (handle === undefined) continue;
    if (table.extra(id) === 0) table.setHandle(id, handle);
    else several.set(id, [...(several.get(id) ?? []), handle]);
  }
  gaps?.close();
  const done = new Set(copies.segments.subarray(0, copies.count));
  for (const [number, ranges] of reserved) {
    if (!done.has(number)) new Gaps(books, segments.at(number), ranges, now).close();
  }
  return several;
}

/** Keeps back what is reserved of a segment between the copies in it, as these are met in order. */
class Gaps {
  readonly segment: Segment;
  readonly #books: Books;
  readonly #ranges: readonly Range[];
  readonly #now: number;
  /** Below this, all is decided; the first range that reaches beyond it. */
  #done = 0;
  #next = 0;

  constructor(books: Books, segment: Segment, ranges: readonly Range[], now: number) {
    this.#books = books;
    this.segment = segment;
    this.#ranges = ranges;
    this.#now = now;
  }

  /** A copy lies from `start` to `end`: nobody else writes there. */
  upTo(start: number, end: number): void {
    while (this.#next < this.#ranges.length) {
      const { offset, size, until } = this.#ranges[this.#next];
      if (offset >= start) break;
      this.#keep(Math.max(offset, this.#done), Math.min(offset + size, start), until);
      if (offset + size > end) break;
      this.#next++;
    }
    this.#done = Math.max(this.#done, end);
  }

  close(): void {
    this.upTo(Infinity, Infinity);
  }

  #keep(start: number, end: number, until: number): void {
    if (start >= end) return;
    const handle = this.#books.segments.placeAt(this.segment, start, end - start);
    if (handle !== undefined) this.#books.keptBack.free([handle], until, this.#now);
    this.#done = end;
  }
}

/** Makes the objects readable that have a place; how many have none. */
async function enter(books: Books, several: ReadonlyMap<number, number[]>, now: number): Promise<number> {
  const { table } = books;
  let dropped = 0;
  await each(books, (id) => {
    const handles = table.extra(id) === 0 ? [table.handle(id)].filter((handle) => handle > 0) : (several.get(id) ?? []);
    if (handles.length === 0) dropped++;
    books.restore(id, handles, now);
  });
  return dropped;
}
