/**
 * Which rank of a decode engine reads what from which rank of a prefill engine: the same answer on every rank of both, as
 * it follows from the layouts alone. A prefill rank keeps its blocks until all of its readers are done; one that nobody
 * reads from (more ranks than KV heads) is let go by the decode rank that `keeper` names.
 */
import { errors, show } from '../core/errors.js';
import { KvLayout } from '../core/layout.js';
import type { KvPlace } from '../core/layout-group.js';
import { type TransferSource, transferSources } from '../core/layout-sources.js';
import type { CallLimits, Peer } from '../transfer/transfer.js';
import type { RankInfo } from './handover.js';

export class HandoverPlan {
  readonly destinations: readonly KvLayout[];
  readonly sources: readonly KvLayout[];
  /** By decode rank. */
  readonly #parts: readonly (readonly TransferSource[])[];

  /** Throws ERR_LAYOUT_MISMATCH, naming the field, where the two engines do not have the same cache. */
  constructor(decode: readonly RankInfo[], prefill: readonly RankInfo[]) {
    checkSame(prefill[0], decode[0]);
    this.destinations = decode.map(({ layout }) => new KvLayout(layout));
    this.sources = prefill.map(({ layout }) => new KvLayout(layout));
    checkGroups(this.sources[0], this.destinations[0]);
    this.#parts = this.destinations.map((destination) => transferSources(destination, this.sources));
  }

  /** What decode rank `rank` reads, by prefill rank. */
  partsOf(rank: number): Map<number, TransferSource[]> {
    const parts = new Map<number, TransferSource[]>();
    for (const part of this.#parts[rank]) parts.set(part.source, [...(parts.get(part.source) ?? []), part]);
    return parts;
  }

  /** The decode ranks that read from prefill rank `source`. */
  readersOf(source: number): number[] {
    return [...this.#parts.keys()].filter((rank) => this.#parts[rank].some((part) => part.source === source));
  }
}

/** The decode rank of `size` that speaks for its engine where no rank needs to, or no plan can be made. */
export function keeper(source: number, size: number): number {
  return source % size;
}

/** Throws ERR_LAYOUT_MISMATCH where two engines compute different KV, or name blocks differently. */
export function checkSame(prefill: RankInfo, decode: RankInfo): void {
  const differ = (field: string, theirs: unknown, ours: unknown) => {
    if (theirs === ours) return;
    throw errors.layoutMismatch(field, ours, `the prefill has ${show(theirs)}, the decode another`);
  };
  differ('model', prefill.model, decode.model);
  for (const field of ['algorithm', 'seed', 'blockSize'] as const) {
    differ(`hash.${field}`, prefill.hash[field], decode.hash[field]);
  }
}

/**
 * Throws ERR_LAYOUT_MISMATCH where the models differ; what their ranks hold of them is transferSources' to compare. Without
 * this, a model of more heads would only be one whose heads nobody holds.
 */
function checkGroups(source: KvLayout, destination: KvLayout): void {
  for (const [index, group] of destination.groups.entries()) {
    const other = source.groups[index];
    for (const field of ['kind', 'heads'] as const) {
      if (other === undefined || other[field] === group[field]) continue;
      const why = `the prefill has ${show(other[field])}, the decode another`;
      throw errors.layoutMismatch(`groups[${index}].${field}`, group[field], why);
    }
  }
}

/** A peer's layout in the segment numbers by which `peer` is asked for them. Throws ERR_SEGMENT where it has none. */
export async function remoteLayout(peer: Peer, info: RankInfo, limits: CallLimits): Promise<KvLayout> {
  const layout = new KvLayout(info.layout).toJSON();
  const names = new Map(info.segments.map(({ id, name }) => [id, name]));
  const numbers = new Map<number, number>();
  for (const { id, length } of layout.segments) {
    const name = names.get(id);
    if (name === undefined) throw errors.segment('layout.segments', id, 'has no name to open it by');
    const segment = await peer.segment(name, limits);
    if (segment.length !== length) throw errors.segment('segment', name, `has ${segment.length} bytes, not ${length}`);
    numbers.set(id, segment.id);
  }
  const number = (id: number) => numbers.get(id) as number;
  const place = ({ segment, offset }: KvPlace): KvPlace => ({ segment: number(segment), offset });
  return new KvLayout({
    ...layout,
    segments: layout.segments.map(({ id, length }) => ({ id: number(id), length })),
    groups: layout.groups.map((group) => ({
      ...group,
      tensors: Object.fromEntries(
        // toJSON gives a place per layer.
        Object.entries(group.tensors).map(([name, tensor]) => [
          name,
          { ...tensor, at: (tensor.at as readonly KvPlace[]).map(place) },
        ]),
      ),
    })),
  });
}
