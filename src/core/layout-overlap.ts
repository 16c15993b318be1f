/**
 * Whether the cells of a group lie apart: those of one tensor, and those of different tensors and layers. Two cells over
 * the same bytes would be two sources for one destination, and nobody would notice.
 */
import { errors } from './errors.js';
import type { KvTensor } from './layout-group.js';

/**
 * Bytes from the first to behind the last cell. Along the axes by rising stride, each step must clear everything
 * inside it: true of every permuted, sliced and padded tensor, and what makes cells disjoint.
 */
export function checkOverlap(path: string, bytes: number, axes: readonly [string, number, number][]): number {
  let extent = bytes;
  for (const [name, count, step] of axes.filter(([, n]) => n > 1).sort((a, b) => a[2] - b[2])) {
    if (step < extent) {
      throw errors.invalidArgument(`${path}.strides.${name}`, step, `at least ${extent}, or cells overlap`);
    }
    extent += (count - 1) * step;
  }
  return extent;
}

/** Tensors that one is compared with, so that an absurd number of interleaved layers costs no minutes. */
const MAX_COMPARED = 512;

/** Along an axis: cells, and the step from one to the next in bytes. */
interface Axis {
  count: number;
  step: number;
}

/**
 * Different tensors or layers must not meet: in their first cells, or, where they are strided alike, in any cell. (Tensors
 * strided otherwise, as scales in the pages of their data, are compared by their first cells alone.)
 */
export function checkDisjoint(
  path: string,
  tensors: ReadonlyMap<string, KvTensor>,
  shape: { blocks: number; tokens: number; heads: number },
): void {
  const all = [...tensors].flatMap(([name, tensor]) => {
    const axes = [
      { count: shape.blocks, step: tensor.block },
      { count: shape.tokens, step: tensor.token ?? 0 },
      { count: shape.heads, step: tensor.head ?? 0 },
    ].filter(({ count, step }) => count > 1 && step > 0);
    axes.sort((a, b) => b.step - a.step);
    const [key, extent] = [JSON.stringify(axes), axes.reduce((sum, { count, step }) => sum + (count - 1) * step, 0)];
    return tensor.places.map(({ segment, offset }, index) => ({
      segment,
      offset,
      bytes: tensor.bytes,
      name,
      index,
      axes,
      key,
      end: offset + extent + tensor.bytes,
    }));
  });
  all.sort((a, b) => a.segment - b.segment || a.offset - b.offset);
  for (const [position, first] of all.entries()) {
    for (const next of all.slice(position + 1, position + 1 + MAX_COMPARED)) {
      if (next.segment !== first.segment || next.offset >= first.end) break;
      const axes = next.key === first.key ? first.axes : [];
      if (!meet(next.offset - first.offset, first.bytes, next.bytes, axes)) continue;
      const expected = `where it meets no cell of ${first.name}.at[${first.index}], which begins at ${first.offset}`;
      throw errors.invalidArgument(`${path}.tensors.${next.name}.at[${next.index}].offset`, next.offset, expected);
    }
  }
}

/**
 * Whether two lattices of the same `axes` (by falling step, each step clearing everything inside it) have cells that
 * overlap, the second lattice `distance` bytes behind the first. What is inside an axis moves a cell by less than a step,
 * so only the two multiples around the distance can bring cells together.
 */
function meet(distance: number, bytes: number, nextBytes: number, axes: readonly Axis[], from = 0): boolean {
  if (from === axes.length) return distance < bytes && distance > -nextBytes;
  const { count, step } = axes[from];
  const near = Math.floor(distance / step);
  for (const steps of [near, near + 1]) {
    if (Math.abs(steps) < count && meet(distance - steps * step, bytes, nextBytes, axes, from + 1)) return true;
  }
  return false;
}
