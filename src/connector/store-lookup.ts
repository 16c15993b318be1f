/**
 * Which blocks of a request the store has, asked for while the engine goes on. Keys are looked up in windows from the
 * front, until a hole makes more of them useless; a block counts as present when every rank finds all that it needs of
 * it, in objects of one deployment.
 */
import { errors } from '../core/errors.js';
import type { ObjectStore } from '../store/api.js';
import { blockKeys, everyHash } from './blocks.js';
import type { StoreGroup, StoreHandshake } from './store-metadata.js';

/** Hashes looked up in one call. */
const WINDOW = 512;
const ABSENT = 0xff;

/** What the workers of an engine need, put together. */
export interface StoreNeeds {
  readonly groups: readonly StoreGroup[];
  /** By source, by group: every prefix that some rank needs. */
  readonly sources: readonly (readonly (readonly Uint8Array[])[])[];
}

/** Puts the workers' handshakes together. Throws where they do not belong to one engine. */
export function needsOf(handshakes: readonly StoreHandshake[]): StoreNeeds {
  const [first] = handshakes;
  if (first === undefined) throw errors.invalidArgument('metadata', handshakes, 'one handshake per rank');
  for (const [index, { groups }] of handshakes.entries()) {
    if (groups.length !== first.groups.length) {
      throw errors.layoutMismatch(`metadata[${index}].groups`, groups.length, `rank 0 has ${first.groups.length}`);
    }
    for (const [group, { blockSize, kind }] of groups.entries()) {
      const other = first.groups[group];
      if (blockSize !== other.blockSize || kind !== other.kind) {
        const why = `rank 0 has ${other.kind} blocks of ${other.blockSize} tokens`;
        throw errors.layoutMismatch(`metadata[${index}].groups[${group}]`, `${kind}, ${blockSize}`, why);
      }
    }
  }
  const sources: Uint8Array[][][] = [];
  for (const [position, { size }] of first.sources.entries()) {
    const all = handshakes.map((handshake) => handshake.sources[position]);
    // Workers index sources by position: behind the first on which they differ, numbers mean nothing.
    if (all.some((source) => source?.size !== size)) break;
    sources.push(
      first.groups.map((_, group) => {
        const distinct = new Map(
          all.flatMap(({ prefixes }) => prefixes[group].map((prefix) => [prefix.join(), prefix])),
        );
        return [...distinct.values()];
      }),
    );
  }
  return { groups: first.groups, sources };
}

/** By group: for each block the number of a source that has it, or ABSENT. */
export class Presence {
  readonly #sources: readonly Uint8Array[];

  constructor(sources: readonly Uint8Array[]) {
    this.#sources = sources;
  }

  has(group: number, block: number): boolean {
    const known = this.#sources[group];
    return block < known.length && known[block] !== ABSENT;
  }

  source(group: number, block: number): number {
    return this.#sources[group][block];
  }
}

export interface LookupLimits {
  readonly tenant: string | undefined;
  /** Of the whole lookup, however many calls it takes. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface LookupOptions extends LookupLimits {
  readonly store: ObjectStore;
  readonly needs: StoreNeeds;
  /** Tokens of a hash. */
  readonly hashBlockSize: number;
}

/**
 * Looks up the blocks of `hashes` (of `width` bytes). A hole before token `computed` is none: the engine has these
 * blocks itself. What the store has not answered in time is absent.
 */
export async function lookUp(
  hashes: Uint8Array,
  width: number,
  computed: number,
  options: LookupOptions,
): Promise<Presence> {
  const { groups } = options.needs;
  const end = performance.now() + options.timeoutMs;
  // Groups whose whole prefix counts come first: they say how far the others are of interest.
  let tokens = (hashes.length / width) * options.hashBlockSize;
  const found: Uint8Array[] = groups.map(() => new Uint8Array(0));
  const order = [...groups.keys()].sort((a, b) => Number(endOnly(groups[a])) - Number(endOnly(groups[b])));
  for (const group of order) {
    const { blockSize } = groups[group];
    const own = everyHash(hashes, width, blockSize / options.hashBlockSize);
    const blocks = Math.min(own.length / width, Math.floor(tokens / blockSize));
    const stopAtHole = !endOnly(groups[group]);
    const present = new Uint8Array(blocks).fill(ABSENT);
    found[group] = present;
    for (let from = 0; from < blocks; from += WINDOW) {
      const timeoutMs = Math.floor(end - performance.now());
      if (timeoutMs < 1) return new Presence(found);
      const to = Math.min(blocks, from + WINDOW);
      const window = own.subarray(from * width, to * width);
      await lookUpWindow(window, width, group, present.subarray(from, to), { ...options, timeoutMs });
      const hole = present.findIndex(
        (source, block) => source === ABSENT && block < to && (block + 1) * blockSize > computed,
      );
      if (!stopAtHole || hole < 0 || hole >= to) continue;
      tokens = Math.min(tokens, hole * blockSize);
      break;
    }
  }
  return new Presence(found);
}

/** Only the end of a prefix matters. */
export function endOnly({ kind }: Pick<StoreGroup, 'kind'>): boolean {
  return kind === 'sliding' || kind === 'state';
}

async function lookUpWindow(
  hashes: Uint8Array,
  width: number,
  group: number,
  present: Uint8Array,
  { store, tenant, needs, timeoutMs, signal }: LookupOptions,
): Promise<void> {
  for (const [source, byGroup] of needs.sources.entries()) {
    const prefixes = byGroup[group];
    // A group that no rank holds layers of has nothing to miss.
    if (prefixes.length === 0) {
      present.fill(0);
      return;
    }
    const missing = [...present.keys()].filter((block) => present[block] === ABSENT);
    if (missing.length === 0) return;
    const wanted = new Uint8Array(missing.length * width);
    for (const [at, block] of missing.entries()) {
      wanted.set(hashes.subarray(block * width, (block + 1) * width), at * width);
    }
    const keys = blockKeys(prefixes, wanted, width);
    const statuses = await store.batchIsExist(keys, { tenant, timeoutMs, signal });
    for (const [at, block] of missing.entries()) {
      let all = true;
      for (let key = at * prefixes.length; key < (at + 1) * prefixes.length; key++) all &&= statuses[key] === 1;
      if (all) present[block] = source;
    }
  }
}

/**
 * The longest prefix, in tokens, at most `limit`, that can be had beyond the `computed` tokens of the engine: every block
 * of groups whose whole prefix counts, and of the others what the next token sees. A multiple of `step`.
 */
export function longestPrefix(
  presence: Presence,
  groups: readonly StoreGroup[],
  computed: number,
  limit: number,
  step: number,
): number {
  let end = Math.floor(limit / step) * step;
  for (const [group, { blockSize }] of groups.entries()) {
    if (endOnly(groups[group])) continue;
    let block = Math.floor(computed / blockSize);
    while ((block + 1) * blockSize <= end && presence.has(group, block)) block++;
    end = Math.min(end, Math.floor((block * blockSize) / step) * step);
  }
  while (end > computed && !groups.every((group, index) => endsAt(presence, group, index, end))) end -= step;
  return Math.max(end, computed);
}

/** Whether what a token behind `end` sees of the group is there. vLLM keeps the last window - 1 tokens before the next. */
function endsAt(presence: Presence, group: StoreGroup, index: number, end: number): boolean {
  if (!endOnly(group)) return true;
  for (const block of seenBlocks(group, end)) if (!presence.has(index, block)) return false;
  return true;
}

/** The blocks of a group that a token behind `end` sees: all of them, those of the window, or the last. */
export function seenBlocks(group: StoreGroup, end: number): number[] {
  const last = end / group.blockSize;
  const first =
    group.kind === 'state'
      ? last - 1
      : group.window === null
        ? 0
        : Math.max(0, Math.floor((end - group.window + 1) / group.blockSize));
  return Array.from({ length: Math.max(0, last - first) }, (_, at) => first + at);
}
