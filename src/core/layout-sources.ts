/**
 * Which ranks of a source deployment one destination rank reads from. Pipeline stages split the layers, tensor
 * parallelism the heads, and with more ranks than heads (or no heads at all) several ranks hold the same: then the
 * destination's rank chooses among them, so that a deployment's ranks spread over all replicas.
 */
import { options as object } from './check.js';
import { errors } from './errors.js';
import { KvLayout } from './layout.js';
import type { KvRange } from './layout-group.js';
import { checkMatch, type LayerChoice, layerFilter } from './layout-match.js';

/** One source rank's part of a destination; `group`, `layers` and `heads` are options of a plan. */
export interface TransferSource {
  /** Position in the list of source layouts. */
  source: number;
  group: number;
  layers: readonly number[];
  heads: KvRange;
}

/**
 * The source ranks that together fill every layer and head of the destination (of one group, or of all). Throws
 * ERR_LAYOUT_MISMATCH when a layout describes another cache, or names the layer and head that no source holds.
 */
export function transferSources(
  destination: KvLayout,
  sources: readonly KvLayout[],
  choice: { group?: number; layers?: LayerChoice } = {},
): TransferSource[] {
  if (!(destination instanceof KvLayout)) throw errors.invalidArgument('destination', destination, 'a KvLayout');
  if (!Array.isArray(sources)) throw errors.invalidArgument('sources', sources, 'an array of KvLayouts');
  for (const [index, source] of sources.entries()) {
    if (!(source instanceof KvLayout)) throw errors.invalidArgument(`sources[${index}]`, source, 'a KvLayout');
    if (source.groups.length !== destination.groups.length) {
      const why = `sources[${index}] has ${source.groups.length} groups, the destination another number`;
      throw errors.layoutMismatch('groups', destination.groups.length, why);
    }
  }
  const { group, layers } = object('options', choice);
  const wanted = layerFilter(layers);
  const indices =
    group === undefined ? destination.groups.keys() : [destination.groups.indexOf(destination.group(group))];

  const found: TransferSource[] = [];
  for (const index of indices) {
    const { headRange } = destination.groups[index];
    const byPart = new Map<string, { need: TransferSource; layers: number[] }>();
    for (const layer of destination.groups[index].layers.filter(wanted)) {
      for (let head = headRange.from; head < headRange.to; ) {
        const source = pick(destination, sources, index, layer, head);
        const to = Math.min(headRange.to, sources[source].groups[index].headRange.to);
        const key = `${source} ${head}`;
        const part = byPart.get(key);
        if (part) part.layers.push(layer);
        else {
          const own = [layer];
          byPart.set(key, { need: { source, group: index, layers: own, heads: { from: head, to } }, layers: own });
        }
        head = to;
      }
    }
    for (const { need } of byPart.values()) {
      checkMatch(sources[need.source], destination, index);
      found.push(need);
    }
  }
  return found;
}

function pick(destination: KvLayout, sources: readonly KvLayout[], group: number, layer: number, head: number): number {
  const { rank, size } = destination.tensorParallel;
  const { kind, replicated } = destination.groups[group];
  const holders = [...sources.keys()].filter((index) => {
    const { layers, headRange } = sources[index].groups[group];
    if (!layers.includes(layer) || head < headRange.from || head >= headRange.to) return false;
    const shard = sources[index].tensorParallel;
    return kind !== 'state' || replicated || (shard.rank === rank && shard.size === size);
  });
  if (holders.length === 0) {
    throw errors.layoutMismatch('sources', layer, `no source rank holds head ${head} of group ${group} in layer`);
  }
  return holders[rank % holders.length];
}
