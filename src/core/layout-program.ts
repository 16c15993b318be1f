/**
 * Reduces two groups of layouts to a transfer program: entries of one contiguous run, repeated over at most two strided
 * dimensions, which assembly/layout/expand.ts unrolls over the pairs of blocks. Every axis that is contiguous on both
 * sides is folded into the run here, and tensors and layers that lie next to each other on both sides become one entry:
 * what remains are the longest runs that the two layouts allow within a block.
 */
import type { KvGroup, KvPlace, KvRange, KvTensor } from './layout-group.js';

/** A repetition of a run: its count, and the step in bytes on each side. */
interface Dimension {
  count: number;
  source: number;
  destination: number;
}

interface Entry {
  sourceSegment: number;
  destinationSegment: number;
  source: number;
  destination: number;
  length: number;
  /** The shorter step first. */
  dimensions: Dimension[];
  sourceBlock: number;
  destinationBlock: number;
  sourceToken: number;
  destinationToken: number;
}

/** What of two groups moves: the positions of the layers in both, and the heads in the model's numbering. */
export interface Overlap {
  layers: readonly { source: number; destination: number }[];
  heads: KvRange;
}

/**
 * blocks: pairs are whole blocks of the same size, every tensor moves. tokens: pairs are `tokens` tokens somewhere in
 * two blocks, tensors with a token axis move. cells: pairs are whole blocks of different sizes, the rest moves.
 */
export type PairKind = 'blocks' | 'tokens' | 'cells';

/** Doubles per entry; assembly/layout/expand.ts has their list. The last two, its pairs, are set by whoever runs it. */
export const ENTRY_FIELDS = 18;
export const ENTRY_DESTINATION_SEGMENT = 1;
export const ENTRY_DESTINATION = 3;
export const ENTRY_INNER_COUNT = 5;
export const ENTRY_OUTER_COUNT = 8;
export const ENTRY_PAIRS = 16;
export const ENTRY_PAIR_COUNT = 17;

/** The program for pairs of `tokens` tokens, as the doubles that the core reads. */
export function compile(
  source: KvGroup,
  destination: KvGroup,
  { layers, heads }: Overlap,
  kind: PairKind,
  tokens: number,
): Float64Array {
  const entries: Entry[] = [];
  for (const [name, from] of source.tensors) {
    if (kind !== 'blocks' && (from.token === null) !== (kind === 'cells')) continue;
    const to = destination.tensors.get(name) as KvTensor;
    const dimensions: Dimension[] = [];
    if (from.token !== null && to.token !== null) {
      dimensions.push({ count: tokens, source: from.token, destination: to.token });
    }
    let [sourceHead, destinationHead] = [0, 0];
    if (from.head !== null && to.head !== null) {
      dimensions.push({ count: heads.to - heads.from, source: from.head, destination: to.head });
      sourceHead = (heads.from - source.headRange.from) * from.head;
      destinationHead = (heads.from - destination.headRange.from) * to.head;
    }
    for (const layer of layers) {
      const [at, into] = [from.places[layer.source], to.places[layer.destination]] as [KvPlace, KvPlace];
      entries.push({
        sourceSegment: at.segment,
        destinationSegment: into.segment,
        source: at.offset + sourceHead,
        destination: into.offset + destinationHead,
        length: from.bytes,
        dimensions,
        sourceBlock: from.block,
        destinationBlock: to.block,
        sourceToken: kind === 'tokens' ? (from.token as number) : 0,
        destinationToken: kind === 'tokens' ? (to.token as number) : 0,
      });
    }
  }
  return encode(simplify(entries), tokens, kind);
}

/** Folds and joins until neither changes anything. */
function simplify(entries: Entry[]): Entry[] {
  entries.sort((a, b) => a.destinationSegment - b.destinationSegment || a.destination - b.destination);
  for (const entry of entries) fold(entry);
  for (;;) {
    const joined: Entry[] = [];
    for (const entry of entries) {
      const last = joined.at(-1);
      if (last !== undefined && adjacent(last, entry)) last.length += entry.length;
      else joined.push(entry);
    }
    if (joined.length === entries.length) return entries;
    entries = joined;
    for (const entry of entries) fold(entry);
  }
}

/** Takes dimensions that continue the run into it, then makes one of two that continue each other. */
function fold(entry: Entry): void {
  let dimensions = entry.dimensions.filter(({ count }) => count > 1);
  for (;;) {
    const next = dimensions.find((each) => each.source === entry.length && each.destination === entry.length);
    if (next === undefined) break;
    entry.length *= next.count;
    dimensions = dimensions.filter((each) => each !== next);
  }
  dimensions.sort((a, b) => a.destination - b.destination);
  if (dimensions.length === 2) {
    const [a, b] = dimensions;
    const nested = a.source * a.count === b.source && a.destination * a.count === b.destination;
    if (nested) dimensions = [{ ...a, count: a.count * b.count }];
  }
  entry.dimensions = dimensions;
}

/** Whether `next` begins where `entry` ends, on both sides, in every repetition. */
function adjacent(entry: Entry, next: Entry): boolean {
  return (
    next.sourceSegment === entry.sourceSegment &&
    next.destinationSegment === entry.destinationSegment &&
    next.source === entry.source + entry.length &&
    next.destination === entry.destination + entry.length &&
    next.sourceBlock === entry.sourceBlock &&
    next.destinationBlock === entry.destinationBlock &&
    next.sourceToken === entry.sourceToken &&
    next.destinationToken === entry.destinationToken &&
    next.dimensions.length === entry.dimensions.length &&
    next.dimensions.every((dimension, index) => {
      const other = entry.dimensions[index];
      return (
        dimension.count === other.count &&
        dimension.source === other.source &&
        dimension.destination === other.destination
      );
    })
  );
}

const ONCE: Dimension = { count: 1, source: 0, destination: 0 };

function encode(entries: readonly Entry[], tokens: number, kind: PairKind): Float64Array {
  const fields = new Float64Array(entries.length * ENTRY_FIELDS);
  for (const [index, entry] of entries.entries()) {
    const inner = entry.dimensions[0] ?? ONCE;
    const outer = entry.dimensions[1] ?? ONCE;
    fields.set(
      [
        entry.sourceSegment,
        entry.destinationSegment,
        entry.source,
        entry.destination,
        entry.length,
        inner.count,
        inner.source,
        inner.destination,
        outer.count,
        outer.source,
        outer.destination,
        entry.sourceBlock,
        entry.destinationBlock,
        entry.sourceToken,
        entry.destinationToken,
        Number(runsCanTouch(entry, tokens, kind)),
      ],
      index * ENTRY_FIELDS,
    );
  }
  return fields;
}

/** Whether the runs of neighbouring pairs can be contiguous on both sides, so that pairs must be the innermost loop. */
function runsCanTouch(entry: Entry, tokens: number, kind: PairKind): boolean {
  if (entry.dimensions.length === 0) return true;
  const side = (block: number, token: number) =>
    block === entry.length || (kind === 'tokens' && token * tokens === entry.length);
  return side(entry.sourceBlock, entry.sourceToken) && side(entry.destinationBlock, entry.destinationToken);
}
