/**
 * Whether two layouts describe the same cache, and what of it two ranks both hold. What must agree is refused with
 * ERR_LAYOUT_MISMATCH, naming the field and both values; what may differ (strides, segments, tensor-parallel size,
 * pipeline stage, block size) is the work of the plan.
 */
import { integer } from './check.js';
import { errors, show } from './errors.js';
import type { KvLayout } from './layout.js';
import type { KvGroup, KvRange, KvTensor } from './layout-group.js';

/** Layers by global index: a range or a list. */
export type LayerChoice = KvRange | readonly number[];

function mismatch(field: string, source: unknown, destination: unknown, why = 'they must be equal') {
  return errors.layoutMismatch(
    field,
    destination,
    `the source has ${show(source)}, the destination ${show(destination)}; ${why}`,
  );
}

const rangeText = ({ from, to }: KvRange) => `${from} to ${to - 1}`;

/** Throws ERR_LAYOUT_MISMATCH unless blocks of `source`'s group can become blocks of `destination`'s. */
export function checkMatch(source: KvLayout, destination: KvLayout, index: number): void {
  const [from, to] = [source.groups[index], destination.groups[index]];
  const path = `groups[${index}]`;
  for (const field of ['kind', 'window', 'heads', 'replicated'] as const) {
    if (from[field] !== to[field]) throw mismatch(`${path}.${field}`, from[field], to[field]);
  }
  const names = (group: KvGroup) => [...group.tensors.keys()].sort().join(', ');
  if (names(from) !== names(to)) throw mismatch(`${path}.tensors`, names(from), names(to));

  for (const [name, tensor] of from.tensors) {
    const field = `${path}.tensors.${name}`;
    const other = to.tensors.get(name) as KvTensor;
    if (tensor.dtype !== other.dtype) throw mismatch(`${field}.dtype`, tensor.dtype, other.dtype);
    if (tensor.elements !== other.elements) throw mismatch(`${field}.elements`, tensor.elements, other.elements);
    for (const axis of ['token', 'head'] as const) {
      if ((tensor[axis] === null) !== (other[axis] === null)) {
        throw mismatch(`${field}.strides.${axis}`, tensor[axis], other[axis], 'only one varies along it');
      }
    }
    if (tensor.token === null && from.blockSize % to.blockSize !== 0) {
      throw mismatch(
        `${path}.blockSize`,
        from.blockSize,
        to.blockSize,
        `${name} has one cell per block to split, not join`,
      );
    }
    const covers = from.headRange.from <= to.headRange.from && from.headRange.to >= to.headRange.to;
    if (tensor.head === null && !covers) {
      const why = `${name} is one cell for the heads of a rank, so the source must hold all heads of the destination`;
      throw mismatch(`${path}.headRange`, rangeText(from.headRange), rangeText(to.headRange), why);
    }
  }

  if (from.kind === 'state') {
    if (from.blockSize !== to.blockSize) throw mismatch(`${path}.blockSize`, from.blockSize, to.blockSize);
    if (!from.replicated) {
      for (const field of ['size', 'rank'] as const) {
        const [ours, theirs] = [source.tensorParallel[field], destination.tensorParallel[field]];
        if (ours !== theirs) throw mismatch(`tensorParallel.${field}`, ours, theirs, 'a shard of a state is opaque');
      }
    }
  }
}

/** A test for the layers that a caller chose; every layer when it chose none. */
export function layerFilter(layers: LayerChoice | undefined): (layer: number) => boolean {
  if (layers === undefined) return () => true;
  if (Array.isArray(layers)) {
    for (const [index, layer] of layers.entries()) integer(`layers[${index}]`, layer, 0, Number.MAX_SAFE_INTEGER);
    const chosen = new Set(layers as readonly number[]);
    return (layer) => chosen.has(layer);
  }
  const { from, to } = range('layers', layers as KvRange);
  return (layer) => layer >= from && layer < to;
}

/** A range of whole numbers that a caller gave. */
export function range(argument: string, value: KvRange): KvRange {
  if (typeof value !== 'object' || value === null) throw errors.invalidArgument(argument, value, 'a range {from, to}');
  const from = integer(`${argument}.from`, value.from, 0, Number.MAX_SAFE_INTEGER);
  return { from, to: integer(`${argument}.to`, value.to, from, Number.MAX_SAFE_INTEGER) };
}

/** What two ranges share; empty ranges have `from` = `to`. */
export function intersect(a: KvRange, b: KvRange): KvRange {
  const from = Math.max(a.from, b.from);
  return { from, to: Math.max(from, Math.min(a.to, b.to)) };
}
