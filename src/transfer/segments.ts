/**
 * The memories that a transfer has registered, by number and by name. Numbers are never used twice, so that a descriptor
 * kept too long names nothing instead of another memory. A move holds the segments it touches; taking a segment away
 * waits for those that hold it.
 */
import { oneOf, options as optionsOf, string, typedArray } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { RegisterOptions } from './transfer.js';

const ACCESS = ['read', 'read-write'] as const;
// Above them lie those of GPUs (device/segments.ts) and the store's space of objects (src/store/api.ts).
const MAX_SEGMENTS = 0xf000_0000;

export interface Segment {
  readonly id: number;
  readonly name: string;
  readonly memory: Uint8Array;
  /** Bytes when it was registered; memory of another length was detached since. */
  readonly length: number;
  /** Peers may write it. */
  readonly writable: boolean;
  /** Moves that touch it. */
  holders: number;
  /** Set once it is being taken away: called when nobody holds it any more. */
  ended?: () => void;
}

// ES2024; undefined before, where nothing can be resized either.
type MaybeResizable = ArrayBufferLike & { resizable?: boolean };

export class SegmentTable {
  readonly #byId = new Map<number, Segment>();
  readonly #byName = new Map<string, Segment>();
  #next = 0;

  register(memory: Uint8Array, options?: RegisterOptions): number {
    const given = optionsOf('options', options);
    const access = given.access === undefined ? 'read-write' : oneOf('options.access', given.access, ACCESS);
    typedArray('memory', memory, memory instanceof Uint8Array, 'a Uint8Array');
    if (memory.length === 0) throw errors.invalidArgument('memory', memory, 'at least one byte long');
    if ((memory.buffer as MaybeResizable).resizable) {
      throw errors.invalidArgument('memory', memory, 'over a buffer that cannot be resized');
    }
    if (this.#next === MAX_SEGMENTS) throw errors.outOfMemory('segment numbers', MAX_SEGMENTS);
    const name = given.name === undefined ? `segment-${this.#next}` : string('options.name', given.name);
    if (name === '' || this.#byName.has(name)) {
      throw errors.invalidArgument('options.name', name, 'a name that no segment of this transfer has');
    }
    const writable = access === 'read-write';
    const segment: Segment = { id: this.#next++, name, memory, length: memory.length, writable, holders: 0 };
    this.#byId.set(segment.id, segment);
    this.#byName.set(name, segment);
    return segment.id;
  }

  /** Resolves when no move touches the segment any more. Throws ERR_SEGMENT. */
  async unregister(id: number): Promise<void> {
    const segment = this.get(id, 'segment');
    this.#byId.delete(id);
    this.#byName.delete(segment.name);
    if (segment.holders === 0) return;
    await new Promise<void>((resolve) => {
      segment.ended = resolve;
    });
  }

  /** The segment of that number; `argument` names it in ERR_SEGMENT. */
  get(id: number, argument: string): Segment {
    const segment = this.#byId.get(id);
    if (!segment) throw errors.segment(argument, id, 'no such segment is registered');
    if (segment.memory.length !== segment.length) throw errors.segment(argument, id, 'its memory was detached');
    return segment;
  }

  find(name: string): Segment | undefined {
    return this.#byName.get(name);
  }
}

/** Keeps the segments until the returned function is called (once; later calls do nothing). */
export function hold(segments: Iterable<Segment>): () => void {
  let held = [...segments];
  for (const segment of held) segment.holders++;
  return () => {
    for (const segment of held) if (--segment.holders === 0) segment.ended?.();
    held = [];
  };
}
