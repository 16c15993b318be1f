/**
 * Turns two lists of block ids into the pairs that the core expands. Both lists cover the same tokens, so with equal
 * block sizes they pair off one to one; otherwise the tokens are cut wherever either side begins a new block. Pairs
 * are sorted by destination: runs of neighbouring blocks merge however the lists were ordered, and a destination named
 * twice is found.
 */
import { integer, options, typedArray } from './check.js';
import { errors } from './errors.js';
import { type KvGroup, type KvRange, NO_BLOCK } from './layout-group.js';

/** Block ids of one sequence, in the order of its tokens. */
export type BlockIds = Uint32Array | Int32Array | readonly number[];

/** `count` pairs of `tokens` tokens: source block, destination block, first token in each, u32 each. */
export interface Pairs {
  tokens: number;
  count: number;
  words: Uint32Array;
}

/** How two lists pair off: by the length of the pairs, and the pairs of whole destination blocks. */
export interface Pairing {
  /** Same block size and whole blocks only: the lists pair off one to one. */
  whole: boolean;
  /** One element per length. */
  pieces: Pairs[];
  /** For tensors without a token axis, whose destination blocks lie in one source block each; empty when `whole`. */
  cells: Pairs;
}

/** Bound of a list: two lists make fewer than POSITIONS pairs, so that id and position fit one double when sorting. */
export const MAX_LIST = 1 << 20;
const POSITIONS = 1 << 21;
const WORDS = 4;

/**
 * Pairs the lists. `tokens` limits the transfer to positions counted from the first token of both lists. Throws
 * ERR_INVALID_ARGUMENT for an id out of range, a destination named twice, lists that cover different tokens where no
 * `tokens.to` says where to end, and a hole in the source where the destination expects tokens it can still see.
 */
export function pairBlocks(
  source: KvGroup,
  destination: KvGroup,
  sourceBlocks: BlockIds,
  destinationBlocks: BlockIds,
  tokens: Partial<KvRange> | undefined,
): Pairing {
  const from = readIds('sourceBlocks', sourceBlocks, source);
  const to = readIds('destinationBlocks', destinationBlocks, destination);
  const [sourceSize, destinationSize] = [source.blockSize, destination.blockSize];
  const range = readRange(tokens, from.length * sourceSize, to.length * destinationSize);
  // vLLM keeps the last window - 1 tokens before the next one (SlidingWindowManager.get_num_skipped_tokens).
  const seen = source.window === null ? 0 : range.to - source.window + 1;
  refuseRepeats(to, range, destinationSize);
  const hole = (index: number, end: number) => {
    if (end <= seen) return;
    const expected = `a block: the destination expects its tokens in block ${to[Math.floor((end - 1) / destinationSize)]}`;
    throw errors.invalidArgument(`sourceBlocks[${index}]`, sourceBlocks[index], expected);
  };

  if (sourceSize === destinationSize && range.from % sourceSize === 0 && range.to % sourceSize === 0) {
    const first = range.from / sourceSize;
    const end = range.to / sourceSize;
    const words = new Uint32Array((end - first) * WORDS);
    let count = 0;
    for (let index = first; index < end; index++) {
      const into = to[index];
      if (into === NO_BLOCK) continue;
      if (from[index] === NO_BLOCK) {
        hole(index, (index + 1) * sourceSize);
        continue;
      }
      words[count * WORDS] = from[index];
      words[count * WORDS + 1] = into;
      count++;
    }
    const pairs = sorted({ tokens: sourceSize, count, words: words.subarray(0, count * WORDS) });
    return { whole: true, pieces: [pairs], cells: NOTHING };
  }

  const byLength = new Map<number, number[]>();
  const cells: number[] = [];
  for (let at = range.from; at < range.to; ) {
    const [sourceIndex, destinationIndex] = [Math.floor(at / sourceSize), Math.floor(at / destinationSize)];
    const end = Math.min((sourceIndex + 1) * sourceSize, (destinationIndex + 1) * destinationSize, range.to);
    const [sourceId, destinationId] = [from[sourceIndex], to[destinationIndex]];
    if (destinationId !== NO_BLOCK) {
      if (sourceId === NO_BLOCK) hole(sourceIndex, end);
      else {
        const [sourceToken, destinationToken] = [at % sourceSize, at % destinationSize];
        let words = byLength.get(end - at);
        if (words === undefined) byLength.set(end - at, (words = []));
        words.push(sourceId, destinationId, sourceToken, destinationToken);
        cells.push(sourceId, destinationId, 0, 0);
      }
    }
    at = end;
  }
  const pairs = (length: number, words: number[]) =>
    sorted({ tokens: length, count: words.length / WORDS, words: Uint32Array.from(words) });
  return {
    whole: false,
    pieces: [...byLength].map(([length, words]) => pairs(length, words)),
    cells: pairs(destinationSize, cells),
  };
}

const NOTHING: Pairs = { tokens: 1, count: 0, words: new Uint32Array(0) };

/** The ids as u32, with NO_BLOCK for each that stands for no block. */
function readIds(argument: string, ids: BlockIds, group: KvGroup): Uint32Array {
  const typed = !Array.isArray(ids);
  if (typed) {
    const expected = 'a Uint32Array, an Int32Array or an array of block ids';
    typedArray(argument, ids, ids instanceof Uint32Array || ids instanceof Int32Array, expected);
  }
  if (ids.length > MAX_LIST) throw errors.invalidArgument(argument, ids, `at most ${MAX_LIST} block ids`);
  const { blocks, nullBlock } = group;
  const read = new Uint32Array(ids.length);
  for (let index = 0; index < ids.length; index++) {
    const id = ids[index];
    if (nullBlock !== null && (id === nullBlock || id === -1 || id === NO_BLOCK)) {
      read[index] = NO_BLOCK;
    } else if ((typed || Number.isInteger(id)) && id >= 0 && id < blocks) {
      read[index] = id;
    } else {
      throw errors.invalidArgument(`${argument}[${index}]`, id, `an integer from 0 to ${blocks - 1}`);
    }
  }
  return read;
}

function readRange(tokens: Partial<KvRange> | undefined, source: number, destination: number): KvRange {
  const given = options('tokens', tokens);
  const least = Math.min(source, destination);
  if (given.to === undefined && source !== destination) {
    const expected = `as long as sourceBlocks: they cover ${source} tokens, unless tokens.to says where to end`;
    throw errors.invalidArgument('destinationBlocks', `${destination} tokens`, expected);
  }
  const to = integer('tokens.to', given.to ?? least, 0, least);
  return { from: integer('tokens.from', given.from ?? 0, 0, to), to };
}

/** Throws when a destination block is named twice among the blocks that hold the tokens of `range`. */
function refuseRepeats(ids: Uint32Array, range: KvRange, size: number): void {
  const first = Math.floor(range.from / size);
  const used = ids.subarray(first, Math.ceil(range.to / size));
  const ordered = used.slice().sort();
  if (ordered.every((id, index) => id === NO_BLOCK || id !== ordered[index - 1])) return;
  const seen = new Set<number>();
  const index = used.findIndex((id) => id !== NO_BLOCK && seen.size === seen.add(id).size);
  const expected = 'named once: two sources for one block';
  throw errors.invalidArgument(`destinationBlocks[${first + index}]`, used[index], expected);
}

/** The pairs by rising destination block; those of one block stay in the order of their tokens. */
function sorted(pairs: Pairs): Pairs {
  const { count, words } = pairs;
  let index = 1;
  while (index < count && words[index * WORDS + 1] >= words[(index - 1) * WORDS + 1]) index++;
  if (index >= count) return pairs;
  const keys = Float64Array.from({ length: count }, (_, at) => words[at * WORDS + 1] * POSITIONS + at).sort();
  const ordered = new Uint32Array(words.length);
  for (const [at, key] of keys.entries()) {
    const start = (key % POSITIONS) * WORDS;
    for (let word = 0; word < WORDS; word++) ordered[at * WORDS + word] = words[start + word];
  }
  return { ...pairs, words: ordered };
}
