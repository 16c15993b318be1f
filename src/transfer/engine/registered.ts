/** The segments that an engine has registered, by number; their names are unique. */
import { integer, oneOf, options as optionsOf, string } from '../../core/check.js';
import { errors } from '../../core/errors.js';
import type { OwnSegment, SegmentKeys } from '../metadata/descriptor.js';
import type { EngineStatistics, MemorySegment, SegmentOptions } from './api.js';
import type { PlaneMemory } from './plane.js';

export const ACCESS = ['read', 'read-write'] as const;
const MAX_NAME = 1024;

interface Entry {
  length: number;
  /** What peers are not told of (files, unannounced memory) has none, and no name. */
  memory?: MemorySegment;
  readOnly?: boolean;
  /** NICs alone reach it. */
  unmapped?: boolean;
  keys?: SegmentKeys;
}

export class RegisteredSegments {
  readonly #entries = new Map<number, Entry>();
  readonly #names = new Set<string>();

  /** Throws ERR_INVALID_ARGUMENT. */
  check(options: SegmentOptions | undefined): { name?: string; writable: boolean } {
    const { name, access = 'read-write' } = optionsOf('options', options);
    const writable = oneOf('options.access', access, ACCESS) === 'read-write';
    if (name === undefined) return { writable };
    string('options.name', name);
    if (name === '' || name.length > MAX_NAME || this.#names.has(name)) {
      throw errors.invalidArgument(
        'options.name',
        name,
        `a name of at most ${MAX_NAME} characters that no segment has`,
      );
    }
    return { name, writable };
  }

  /** `checked`: what `check` gave for it. */
  add(
    { id, memory, address }: PlaneMemory,
    length: number,
    checked: { name?: string; writable: boolean; unmapped?: boolean },
  ): MemorySegment {
    const { name: wanted, writable, unmapped } = checked;
    let name = wanted ?? `segment-${id}`;
    while (wanted === undefined && this.#names.has(name)) name += '+';
    const segment = { id, name, memory, address, length };
    this.#entries.set(id, { length, memory: segment, readOnly: !writable, unmapped });
    this.#names.add(name);
    return segment;
  }

  addUnannounced(id: number, length: number): void {
    this.#entries.set(id, { length });
  }

  /** Throws ERR_SEGMENT. */
  remove(id: number): Entry {
    const entry = this.#entries.get(integer('segment', id, 0, 0xffff_ffff));
    if (!entry) throw errors.segment('segment', id, 'no such segment is registered');
    this.#entries.delete(id);
    if (entry.memory) this.#names.delete(entry.memory.name);
    return entry;
  }

  /** NICs reach it with these. Without effect where it was removed meanwhile. */
  setKeys(id: number, keys: SegmentKeys | undefined): void {
    const entry = this.#entries.get(id);
    if (entry) entry.keys = keys;
  }

  /** What peers are told of. */
  get announced(): OwnSegment[] {
    return [...this.#entries.values()].flatMap(({ memory, keys, readOnly, unmapped }) => {
      if (!memory) return [];
      const { id, name, address, length } = memory;
      return { id, name, address, length, keys, readOnly, unmapped };
    });
  }

  get figures(): EngineStatistics['segments'] {
    let bytes = 0;
    for (const { length } of this.#entries.values()) bytes += length;
    return { count: this.#entries.size, bytes };
  }
}
