/**
 * TransferPlan: how the blocks of one layout's group become blocks of another's. Made once for a pair of ranks, it
 * checks that both speak of the same cache, finds the layers and heads that both hold, and keeps the compiled programs;
 * then every list of block ids becomes descriptors at the speed of the core.
 */
import { integer, options as object } from './check.js';
import type { Descriptors } from './descriptors.js';
import { errors } from './errors.js';
import { KvLayout } from './layout.js';
import { chunked, expand, type Part } from './layout-expand.js';
import type { KvGroup, KvRange } from './layout-group.js';
import { checkMatch, intersect, type LayerChoice, layerFilter, range } from './layout-match.js';
import { type BlockIds, type Pairs, pairBlocks } from './layout-pairs.js';
import { compile, type Overlap, type PairKind } from './layout-program.js';

export interface PlanOptions {
  /** Index of the group in both layouts. May be left out where both have one. */
  group?: number;
  /** Only these layers (global indices), for a transfer layer by layer. Default: all that both ranks hold. */
  layers?: LayerChoice;
  /** Only these heads (of the model). Default: all that both ranks hold. */
  heads?: KvRange;
}

export interface TransferBlocks {
  /** Block ids in the source's cache, in the order of the tokens; repeats are allowed. */
  sourceBlocks: BlockIds;
  /** Block ids in the destination's cache for the same tokens; none is named twice. */
  destinationBlocks: BlockIds;
  /** Only these tokens, counted from the first token of both lists: where a list ends inside a block, or begins. */
  tokens?: Partial<KvRange>;
}

/** Programs kept for pieces of blocks: the last block of a sequence may end anywhere. */
const MAX_PROGRAMS = 64;

export class TransferPlan {
  /** Layers (global indices) that the plan moves, in the order of the destination's group. */
  readonly layers: readonly number[];
  /** Heads (of the model) that the plan moves; [0, 1) where the group has none. */
  readonly heads: KvRange;
  readonly #source: KvGroup;
  readonly #destination: KvGroup;
  readonly #overlap: Overlap;
  readonly #programs = new Map<string, Float64Array>();

  /** Throws ERR_LAYOUT_MISMATCH, naming the field, when the groups do not describe the same cache. */
  constructor(source: KvLayout, destination: KvLayout, plan: PlanOptions = {}) {
    if (!(source instanceof KvLayout)) throw errors.invalidArgument('source', source, 'a KvLayout');
    if (!(destination instanceof KvLayout)) throw errors.invalidArgument('destination', destination, 'a KvLayout');
    const { group, layers, heads } = object('options', plan);
    this.#source = source.group(group);
    this.#destination = destination.group(group);
    checkMatch(source, destination, group ?? 0);

    const wanted = layerFilter(layers);
    const positions = new Map(this.#source.layers.map((layer, position) => [layer, position]));
    const shared = [...this.#destination.layers.entries()].filter(([, layer]) => positions.has(layer) && wanted(layer));
    this.layers = shared.map(([, layer]) => layer);
    const both = intersect(this.#source.headRange, this.#destination.headRange);
    this.heads = heads === undefined ? both : intersect(both, range('heads', heads));
    const empty = this.heads.from === this.heads.to;
    this.#overlap = {
      layers: (empty ? [] : shared).map(([destination, layer]) => ({
        source: positions.get(layer) as number,
        destination,
      })),
      heads: this.heads,
    };
  }

  /**
   * The descriptors that move these blocks. Throws ERR_INVALID_ARGUMENT for ids out of range, a destination named
   * twice, lists that do not cover the same tokens, or a hole where the destination needs a block.
   */
  describe(blocks: TransferBlocks): Descriptors {
    return expand(this.#parts(blocks));
  }

  /**
   * The same in pieces of at most `maxRecords` records (but at least one pair of blocks), for plans whose descriptors
   * need not exist all at once. Runs merge within a piece.
   */
  chunks(blocks: TransferBlocks, maxRecords = 65536): IterableIterator<Descriptors> {
    integer('maxRecords', maxRecords, 1, 0x7fff_ffff);
    return chunked(this.#parts(blocks), maxRecords);
  }

  #parts(blocks: TransferBlocks): Part[] {
    if (blocks === undefined) throw errors.invalidArgument('blocks', blocks, 'an object');
    const { sourceBlocks, destinationBlocks, tokens } = object('blocks', blocks);
    const [source, destination] = [this.#source, this.#destination];
    const pairing = pairBlocks(source, destination, sourceBlocks, destinationBlocks, tokens);
    if (pairing.whole) return this.#part('blocks', pairing.pieces[0]);
    const from = tokens?.from ?? 0;
    const split =
      [...source.tensors.values()].some(({ token }) => token === null) && from % destination.blockSize !== 0;
    if (split) {
      const expected = `a multiple of ${destination.blockSize}: a tensor of the group has one cell per block`;
      throw errors.invalidArgument('tokens.from', from, expected);
    }
    return [...pairing.pieces.flatMap((pairs) => this.#part('tokens', pairs)), ...this.#part('cells', pairing.cells)];
  }

  #part(kind: PairKind, pairs: Pairs): Part[] {
    const key = `${kind} ${pairs.tokens}`;
    let program = this.#programs.get(key);
    if (program === undefined) {
      program = compile(this.#source, this.#destination, this.#overlap, kind, pairs.tokens);
      if (this.#programs.size === MAX_PROGRAMS) this.#programs.clear();
      this.#programs.set(key, program);
    }
    return pairs.count > 0 && program.length > 0 ? [{ program, pairs }] : [];
  }
}

/**
 * The descriptors that move `sourceBlocks` of one rank's cache to `destinationBlocks` of another's, for the layers and
 * heads that both hold. Make a TransferPlan to do this more than once for the same two ranks.
 */
export function planTransfer(
  source: KvLayout,
  destination: KvLayout,
  options: PlanOptions & TransferBlocks,
): Descriptors {
  return new TransferPlan(source, destination, options).describe(options);
}
