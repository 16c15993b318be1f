/**
 * A world in which the metadata service is believed: processes with memory, into which writers write and from which readers
 * read where the service says. Memory is a map of cells, painted with what was written last; so an allocation that overlaps
 * another, or is handed out while somebody may still use it, shows as wrong paint. It is naive: it knows everything, searches
 * from end to end, and shares no code with the service.
 */
import { Keys, MetadataService, type Replica, type SegmentInfo } from 'mooncake-ts';
import * as assert from 'uvu/assert';
import { uuid } from './support.js';

export const CELL = 64;
export const LEASE_MS = 100;
export const DISCARD_MS = 1000;
export const RELEASE_MS = 5000;
const SEGMENT_CELLS = 64;
const SEGMENT_BYTES = SEGMENT_CELLS * CELL;

export interface Process {
  readonly client: string;
  readonly base: number;
  /** What was written last, cell by cell. */
  readonly memory: number[];
}

/** A copy: the segment, and the cells of a process that it takes. */
export interface Place {
  readonly segment: string;
  readonly process: Process;
  readonly from: number;
  readonly cells: number;
}

export interface Content {
  readonly paint: number;
  readonly size: number;
  places: Place[];
}

/** Somebody who may write to places until then, unless it has said that it is done. */
export interface Writer {
  readonly key: string;
  readonly client: string;
  readonly startedAt: number;
  readonly paint: number;
  readonly size: number;
  /** All that it was given; and those that have not gone with their segments. */
  readonly given: readonly Place[];
  places: Place[];
  isDone: boolean;
}

/** A copy or move; `source`: undefined once it has gone. */
export interface Copier extends Writer {
  readonly kind: 'copy' | 'move';
  source: Place | undefined;
}

interface Reader {
  readonly content: Content;
  readonly places: readonly Place[];
  readonly until: number;
}

export class World {
  now = 1000;
  readonly service: MetadataService;
  readonly processes: Process[] = [];
  readonly segments = new Map<string, { process: Process; info: SegmentInfo }>();
  /** What was mounted once, by id: places of it are still told apart when it is gone. */
  readonly #known = new Map<string, { process: Process; base: number }>();
  readonly contents = new Map<string, Content>();
  readonly puts = new Map<string, Writer>();
  readonly copies = new Map<string, Copier>();
  readonly writers: Writer[] = [];
  #readers: Reader[] = [];
  #paints = 0;
  #evicted = 0;
  #nextClient = 1;

  constructor(random: () => number) {
    this.service = new MetadataService({
      now: () => this.now,
      random,
      alignment: CELL,
      leaseTtlMs: LEASE_MS,
      putDiscardMs: DISCARD_MS,
      putReleaseMs: RELEASE_MS,
      evictionHighWatermark: 0.9,
      evictionRatio: 0.01,
    });
  }

  /** A new process; it has mounted nothing. */
  begin(): Process {
    const client = uuid(0xc0000 + this.#nextClient);
    const process = { client, base: this.#nextClient++ * 2 ** 30, memory: Array(2 * SEGMENT_CELLS).fill(0) };
    this.processes.push(process);
    return process;
  }

  /** One of the ways in which a process lends its memory: the first half, the second, or both as one. */
  mount(process: Process, way: number, number: number): number {
    const base = process.base + (way === 1 ? SEGMENT_BYTES : 0);
    const length = way === 2 ? 2 * SEGMENT_BYTES : SEGMENT_BYTES;
    const name = `memory ${this.processes.indexOf(process) % 3} ${way}`;
    const info = { id: uuid(0x5e000 + number), name, base, length, endpoint: name, protocol: 'tcp', hostId: '' };
    const status = this.service.mountSegment(info, process.client);
    if (status === 0 && !this.segments.has(info.id)) {
      this.segments.set(info.id, { process, info });
      this.#known.set(info.id, { process, base });
    }
    return status;
  }

  /** A segment is gone, and every copy in it. */
  unmount(id: string): void {
    const segment = this.segments.get(id)!;
    assert.is(this.service.unmountSegment(id, segment.process.client), 0);
    this.segments.delete(id);
    const stays = (place: Place) => place.segment !== id;
    for (const [key, put] of this.puts) {
      put.places = put.places.filter(stays);
      if (put.places.length === 0) this.puts.delete(key);
    }
    for (const copier of this.copies.values()) {
      copier.places = copier.places.filter(stays);
      if (copier.source && !stays(copier.source)) copier.source = undefined;
    }
    for (const [key, content] of this.contents) {
      content.places = content.places.filter(stays);
      if (content.places.length === 0) this.lose(key);
    }
  }

  /** The content of a key is gone, and with it the copy that was being made of it. */
  lose(key: string): void {
    this.contents.delete(key);
    this.copies.delete(key);
  }

  /** Time passes; what has run out by then is over, at the next call. */
  pass(ms: number): void {
    this.now += ms;
    this.service.tick();
    for (const [key, put] of this.puts) if (this.now - put.startedAt >= RELEASE_MS) this.puts.delete(key);
    for (const [key, { startedAt }] of this.copies) {
      if (this.now - startedAt >= RELEASE_MS) this.copies.delete(key);
    }
    this.#readers = this.#readers.filter(({ until }) => until > this.now);
  }

  placesOf(replicas: readonly Replica[]): Place[] {
    return replicas.map(({ segment, offset, size }) => {
      const { process, base } = this.#known.get(segment)!;
      const from = (base - process.base + offset) / CELL;
      return { segment, process, from, cells: Math.ceil(size / CELL) };
    });
  }

  /** Somebody was given places to write to. Nobody else may be using them. */
  given(what: Pick<Writer, 'key' | 'client' | 'size'> & { paint?: number }, replicas: readonly Replica[]): Writer {
    const places = this.placesOf(replicas);
    const distinct = new Set(places.map(({ segment }) => segment));
    assert.is(distinct.size, places.length, 'copies on different segments');
    for (const place of places) {
      const isFree = (others: readonly Place[]) => others.every((other) => !overlap(place, other));
      for (const [key, content] of this.contents) assert.ok(isFree(content.places), `${key} is there`);
      for (const { places: read, until } of this.#readers) {
        assert.ok(until <= this.now || isFree(read), 'somebody is reading there');
      }
      for (const { given, startedAt, isDone } of this.writers) {
        const isOver = isDone || this.now - startedAt >= RELEASE_MS;
        assert.ok(isOver || isFree(given), 'somebody may be writing there');
      }
      assert.ok(places.every((other) => other === place || !overlap(place, other)));
    }
    const paint = what.paint ?? ++this.#paints;
    const writer = { ...what, paint, startedAt: this.now, given: places, places: [...places], isDone: false };
    this.writers.push(writer);
    return writer;
  }

  write({ given }: Writer, paint: number): void {
    for (const { process, from, cells } of given) process.memory.fill(paint, from, from + cells);
  }

  /** Those who have neither ended nor run out of time write something wrong. */
  writeLate(choose: () => boolean): void {
    for (const writer of this.writers) {
      const { isDone, startedAt } = writer;
      // A writer that ends properly writes its bytes before: not after this.
      if (!isDone && this.now - startedAt < RELEASE_MS && choose()) this.write(writer, -1);
    }
  }

  /** A read: what was found is right, and stays so for as long as the lease lasts. */
  read(key: string): void {
    const [found] = this.service.getReplicas(Keys.from([key]), 'default');
    const content = this.contents.get(key);
    assert.is(found.ok, content !== undefined, key);
    if (!found.ok || !content) return;
    const places = this.placesOf(found.value.replicas);
    this.#readers.push({ content, places, until: this.now + LEASE_MS });
  }

  isLeased(key: string): boolean {
    const content = this.contents.get(key);
    return this.#readers.some((reader) => reader.content === content && reader.until > this.now);
  }

  /**
   * As many objects are missing as were evicted: which, the service decides, but none that is being read or copied. One is
   * being written anew, in its place or after it was evicted.
   */
  noteEvicted(written?: string): void {
    const evicted = this.service.stats().evictedObjects - this.#evicted;
    this.#evicted += evicted;
    let missing = 0;
    for (const key of this.contents.keys()) {
      if (key === written) continue;
      if (this.service.peek(Keys.from([key]), 'default')[0].ok) continue;
      assert.not(this.copies.has(key), `${key} was lost while it was copied`);
      assert.not(this.isLeased(key), `${key} was lost while it was read`);
      missing++;
      this.lose(key);
    }
    if (written === undefined || evicted === missing) assert.is(missing, evicted, 'missing and not evicted');
    else assert.is(missing, evicted - 1, 'missing and not evicted');
  }

  /** Everything that was acknowledged and not evicted is there, where it was, and right. */
  check(): void {
    this.noteEvicted();
    const { incomplete, objects } = this.service.stats();
    for (const [key, content] of this.contents) {
      const [found] = this.service.peek(Keys.from([key]), 'default');
      if (!found.ok) throw new Error(`${key} is missing`);
      assert.is(found.value.size, content.size);
      assert.equal(
        found.value.replicas.map(({ state }) => state),
        content.places.map(() => 'complete'),
      );
      assert.equal(shown(this.placesOf(found.value.replicas)), shown(content.places), key);
      assertPaint(content, content.places, key);
    }
    for (const { content, places } of this.#readers) assertPaint(content, places, 'read under a lease');
    assert.is(objects, this.contents.size);
    assert.is(incomplete, this.puts.size);
    assert.is(this.service.copies.count, this.copies.size);
  }
}

function overlap(a: Place, b: Place): boolean {
  return a.process === b.process && a.from < b.from + b.cells && b.from < a.from + a.cells;
}

const shown = (places: readonly Place[]) => places.map(({ segment, from }) => `${segment} ${from}`).sort();

function assertPaint({ paint }: Content, places: readonly Place[], what: string): void {
  for (const { process, from, cells } of places) {
    for (let cell = from; cell < from + cells; cell++) assert.is(process.memory[cell], paint, `${what}: wrong bytes`);
  }
}
