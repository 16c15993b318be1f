/**
 * KvLayout: where the paged KV cache of one engine rank lies, as groups of layers that share block ids
 * (src/core/layout-group.ts) in registered memories. Which heads the rank holds follows from its tensor-parallel rank,
 * which layers from the groups (its pipeline stage). docs/layout.md shows vLLM's tensors in these terms.
 */
import { integer, options } from './check.js';
import { errors } from './errors.js';
import { groupOptions, type KvGroup, type KvGroupOptions, list, MAX_RANKS, readGroup, record } from './layout-group.js';

export interface KvLayoutOptions {
  /** The registered memories that places refer to: ids are 32-bit, lengths in bytes. */
  segments: readonly { id: number; length: number }[];
  groups: readonly KvGroupOptions[];
  /** Default rank 0 of 1. */
  tensorParallel?: { rank: number; size: number };
  /** Default rank 0 of 1. Says who this is; which layers it holds is said by the groups. */
  pipelineParallel?: { rank: number; size: number };
}

const MAX_GROUPS = 1 << 10;
const MAX_SEGMENTS = 1 << 20;

export class KvLayout {
  readonly groups: readonly KvGroup[];
  readonly tensorParallel: Readonly<{ rank: number; size: number }>;
  readonly pipelineParallel: Readonly<{ rank: number; size: number }>;
  readonly #lengths: ReadonlyMap<number, number>;

  /**
   * Takes plain data (it may come from JSON). Throws ERR_INVALID_ARGUMENT, naming the field, for a wrong type, heads
   * that do not divide over the ranks, a tensor that leaves its segment, or strides that make two cells overlap.
   */
  constructor(layout: KvLayoutOptions) {
    if (layout === undefined) throw errors.invalidArgument('layout', layout, 'an object');
    const { segments, groups, tensorParallel, pipelineParallel } = options('layout', layout);
    this.tensorParallel = rankOf('tensorParallel', tensorParallel);
    this.pipelineParallel = rankOf('pipelineParallel', pipelineParallel);
    const lengths = segmentLengths(segments);
    this.#lengths = lengths;
    list('groups', groups, 1, MAX_GROUPS);
    this.groups = Array.from(groups, (group, index) =>
      readGroup(`groups[${index}]`, group, this.tensorParallel, lengths),
    );
  }

  /** The group at `index`; without an index, the only one. */
  group(index?: number): KvGroup {
    if (index === undefined && this.groups.length > 1) {
      throw errors.invalidArgument('group', index, `given: the layout has ${this.groups.length} groups`);
    }
    return this.groups[integer('group', index ?? 0, 0, this.groups.length - 1)];
  }

  /**
   * What two ranks must agree on to read each other's blocks, as canonical JSON: kinds, block sizes, layers, heads and
   * element types, and this rank's slice of the heads; nothing of where the bytes lie.
   */
  fingerprint(): string {
    return JSON.stringify(
      this.groups.map((group) => ({
        blockSize: group.blockSize,
        headRange: [group.headRange.from, group.headRange.to],
        heads: group.heads,
        kind: group.kind,
        layers: [...group.layers].sort((a, b) => a - b),
        // An opaque state is cut by rank, not by head.
        shard:
          group.kind === 'state' && !group.replicated ? [this.tensorParallel.rank, this.tensorParallel.size] : null,
        tensors: [...group.tensors]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, { dtype, elements, token, head }]) => [name, dtype, elements, token !== null, head !== null]),
        window: group.window,
      })),
    );
  }

  /** Plain data that makes an equal layout: for JSON, or to send it to a worker. */
  toJSON(): KvLayoutOptions {
    return {
      segments: [...this.#lengths].map(([id, length]) => ({ id, length })),
      tensorParallel: this.tensorParallel,
      pipelineParallel: this.pipelineParallel,
      groups: this.groups.map(groupOptions),
    };
  }
}

function rankOf(argument: string, value: { rank: number; size: number } | undefined) {
  if (value === undefined) return { rank: 0, size: 1 };
  options(argument, value);
  const size = integer(`${argument}.size`, value.size, 1, MAX_RANKS);
  return { rank: integer(`${argument}.rank`, value.rank, 0, size - 1), size };
}

function segmentLengths(segments: KvLayoutOptions['segments']): Map<number, number> {
  list('segments', segments, 0, MAX_SEGMENTS);
  const lengths = new Map<number, number>();
  for (const [index, segment] of segments.entries()) {
    record(`segments[${index}]`, segment);
    const id = integer(`segments[${index}].id`, segment.id, 0, 0xffff_fffe);
    if (lengths.has(id)) throw errors.invalidArgument(`segments[${index}].id`, id, 'listed once');
    lengths.set(id, integer(`segments[${index}].length`, segment.length, 0, Number.MAX_SAFE_INTEGER));
  }
  return lengths;
}
