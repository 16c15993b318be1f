/**
 * What one object of the store holds: a block of one group as one tensor-parallel rank has it. The layers lie one after
 * another in rising order, each dense; within a layer the cells keep the order they have in the engine's memory, so that
 * a block moves in one run per layer. That order (the form) is part of the namespace: engines of another form, or of one
 * heads-first and one tokens-first, do not meet by accident.
 */
import { KvLayout } from '../core/layout.js';
import {
  headRange,
  type KvGroup,
  type KvGroupOptions,
  type KvTensor,
  type KvTensorOptions,
} from '../core/layout-group.js';
import { OBJECTS } from '../store/api.js';

/** Objects of one batch, at most. */
export const MAX_OBJECTS = 1 << 16;

export interface ObjectLayout {
  /** One block per object, in segment OBJECTS (or the one asked for); the groups are the engine's. */
  readonly layout: KvLayout;
  /** Bytes of an object, by group; 0 where the rank holds no layer of it. */
  readonly bytes: readonly number[];
  /** The order of cells in a layer, outermost axis first, by group: `head,token,tensor:k+v`. */
  readonly forms: readonly string[];
}

type Axis = 'tensor' | 'token' | 'head';

/** The objects of rank `rank` of `size`, of an engine whose rank is laid out as `engine`. Throws where heads do not divide. */
export function objectLayout(
  engine: KvLayout,
  { rank, size }: { rank: number; size: number } = engine.tensorParallel,
  segment = OBJECTS,
): ObjectLayout {
  const dense = engine.groups.map((group) => {
    const heads = group.heads > 0 ? headRange(group.heads, rank, size) : { from: 0, to: 1 };
    return denseGroup(group, heads.to - heads.from, segment);
  });
  const length = MAX_OBJECTS * Math.max(...dense.map(({ bytes }) => bytes));
  const layout = new KvLayout({
    segments: [{ id: segment, length }],
    tensorParallel: { rank, size },
    pipelineParallel: engine.pipelineParallel,
    groups: dense.map(({ options }) => options),
  });
  return { layout, bytes: dense.map(({ bytes }) => bytes), forms: dense.map(({ form }) => form) };
}

/** The axes of a layer as the engine has them, outermost first, and the tensors in their order. */
function formOf({ tensors }: KvGroup): { axes: Axis[]; names: string[] } {
  const named = [...tensors];
  const first = named[0][1];
  const alike = named.every(
    ([, { token, head }]) => (token === null) === (first.token === null) && (head === null) === (first.head === null),
  );
  const start = ({ places }: KvTensor) => places[0]?.offset ?? 0;
  const together = alike && named.every(([, { places }]) => places[0]?.segment === first.places[0]?.segment);
  const apart = named.map(([, tensor]) => Math.abs(start(tensor) - start(first))).filter((distance) => distance > 0);
  const tensorStep = together && apart.length > 0 ? Math.min(...apart) : Number.POSITIVE_INFINITY;
  const interleaved = tensorStep < first.block;

  const steps: [Axis, number][] = [['tensor', interleaved ? tensorStep : Number.POSITIVE_INFINITY]];
  if (named.some(([, { token }]) => token !== null)) steps.push(['token', first.token ?? 0]);
  if (named.some(([, { head }]) => head !== null)) steps.push(['head', first.head ?? 0]);
  const axes = steps.sort((a, b) => b[1] - a[1]).map(([axis]) => axis);
  const names = interleaved
    ? named.sort(([, a], [, b]) => start(a) - start(b)).map(([name]) => name)
    : named.map(([name]) => name).sort();
  return { axes, names };
}

function denseGroup(group: KvGroup, heads: number, segment: number) {
  const { axes, names } = formOf(group);
  const sizes = { token: group.blockSize, head: heads };
  const inner = axes.slice(axes.indexOf('tensor') + 1).reverse() as ('token' | 'head')[];
  const outer = axes.slice(0, axes.indexOf('tensor')).reverse() as ('token' | 'head')[];

  // From the cell outwards: each tensor by itself up to the tensor axis, then all of them together.
  let together = 0;
  const parts = names.map((name) => {
    const tensor = group.tensors.get(name) as KvTensor;
    const steps: { token?: number; head?: number } = {};
    let extent = tensor.bytes;
    for (const axis of inner) {
      if (tensor[axis] === null) continue;
      steps[axis] = extent;
      extent *= sizes[axis];
    }
    const offset = together;
    together += extent;
    return { name, tensor, steps, offset };
  });
  for (const axis of outer) {
    for (const { steps } of parts) steps[axis] = together;
    together *= sizes[axis];
  }

  const layers = [...group.layers].sort((a, b) => a - b);
  const bytes = together * layers.length;
  const tensors = parts.map(({ name, tensor, steps, offset }): [string, KvTensorOptions] => [
    name,
    {
      dtype: tensor.dtype,
      elements: tensor.elements,
      // A rank without layers has no objects, but its group must still be described.
      strides: {
        block: Math.max(bytes, together),
        token: steps.token ?? null,
        head: steps.head ?? null,
        layer: together,
      },
      at: { segment, offset },
    },
  ]);
  const options: KvGroupOptions = {
    kind: group.kind,
    layers,
    blockSize: group.blockSize,
    blocks: MAX_OBJECTS,
    heads: group.heads > 0 ? group.heads : undefined,
    window: group.window ?? undefined,
    nullBlock: null,
    replicated: group.kind === 'state' ? group.replicated : undefined,
    tensors: Object.fromEntries(tensors),
  };
  const form = axes.map((axis) => (axis === 'tensor' ? `tensor:${names.join('+')}` : axis)).join();
  return { options, bytes, form };
}
