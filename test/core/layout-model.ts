/**
 * What the layout tests compare with: random layouts of random caches, and a transfer written the slow way, one element
 * of one head of one token at a time, from the definition of a layout alone.
 */
import type { KvDtype, KvGroupOptions, KvLayoutOptions, KvPlace, KvTensorOptions } from 'mooncake-ts';

/** Draws an integer between two bounds, both included. */
export type Draw = (min: number, max: number) => number;

/** A cache as the model sees it: what all ranks of all deployments agree on. */
export interface Cache {
  kind: KvGroupOptions['kind'];
  heads: number;
  layers: number;
  window?: number;
  tensors: Record<string, { dtype: KvDtype; elements: number; token: boolean; head: boolean }>;
}

const ITEM: Partial<Record<KvDtype, number>> = { float32: 4, bfloat16: 2, float8_e4m3fn: 1, uint8: 1 };

export const cellBytes = (tensor: { dtype: KvDtype; elements: number }) => tensor.elements * ITEM[tensor.dtype]!;

export function drawCache(draw: Draw): Cache {
  const kind = (['full', 'full', 'full', 'sliding', 'mla', 'state'] as const)[draw(0, 5)];
  const headed = kind === 'full' || kind === 'sliding';
  const dtype = (['float32', 'bfloat16', 'float8_e4m3fn'] as const)[draw(0, 2)];
  const tensors: Cache['tensors'] = {};
  if (headed) {
    tensors.k = { dtype, elements: draw(1, 4), token: true, head: true };
    tensors.v = { dtype, elements: draw(0, 3) ? tensors.k.elements : draw(1, 4), token: true, head: true };
    // Scales per token and head, or per block and head.
    if (draw(0, 3) === 0) tensors.kScale = { dtype: 'float32', elements: 1, token: draw(0, 1) === 0, head: true };
  } else if (kind === 'mla') {
    tensors.latent = { dtype, elements: draw(1, 6), token: true, head: false };
    if (draw(0, 2) === 0) tensors.index = { dtype: 'uint8', elements: draw(1, 3), token: true, head: false };
  } else {
    tensors.conv = { dtype, elements: draw(1, 5), token: false, head: false };
    tensors.ssm = { dtype: 'float32', elements: draw(1, 5), token: false, head: false };
  }
  const heads = headed ? [1, 2, 4, 6, 8][draw(0, 4)] : 0;
  return { kind, heads, layers: draw(1, 4), window: kind === 'sliding' ? draw(1, 12) : undefined, tensors };
}

export interface RankShape {
  rank: number;
  size: number;
  layers: number[];
  blockSize: number;
  blocks: number;
}

/** The heads of a rank, counted one by one: head h belongs to the ranks r with floor(r * heads / size) up to its share. */
export function headsOf(heads: number, rank: number, size: number): number[] {
  if (heads === 0) return [0];
  const owners = Array.from({ length: heads }, (_, head) => head);
  return owners.filter((head) =>
    size >= heads ? Math.floor(rank / (size / heads)) === head : Math.floor(head / (heads / size)) === rank,
  );
}

/** Lays a rank's tensors out in memory: any order of the axes, any padding, tensors and layers together or apart. */
export function drawLayout(draw: Draw, cache: Cache, shape: RankShape): KvLayoutOptions {
  const heads = headsOf(cache.heads, shape.rank, shape.size).length;
  const ends = [0, 0];
  const padding = () => (draw(0, 3) === 0 ? draw(1, 9) : 0);
  const tensors: Record<string, KvTensorOptions> = {};
  const apart = draw(0, 1) === 0;
  const layersApart = draw(0, 1) === 0;

  const families = new Map<string, string[]>();
  for (const [name, { token, head }] of Object.entries(cache.tensors)) {
    const key = apart ? name : `${token} ${head}`;
    families.set(key, [...(families.get(key) ?? []), name]);
  }
  for (const names of families.values()) {
    const { token, head } = cache.tensors[names[0]];
    const sizes: Record<string, number> = { block: shape.blocks, tensor: names.length };
    if (token) sizes.token = shape.blockSize;
    if (head) sizes.head = heads;
    if (!layersApart) sizes.layer = Math.max(1, shape.layers.length);
    const order = shuffled(draw, Object.keys(sizes));
    const cells = names.map((name) => cellBytes(cache.tensors[name]));
    // Innermost first. Where tensors are innermost their cells follow each other; elsewhere the widest cell rules.
    const steps: Record<string, number> = {};
    const starts = names.map(() => 0);
    let extent = Math.max(...cells);
    for (const [index, axis] of order.entries()) {
      if (axis === 'tensor' && index === 0) {
        let at = 0;
        for (const [position, bytes] of cells.entries()) {
          starts[position] = at;
          at += bytes;
        }
        extent = at + padding();
      } else {
        steps[axis] = extent + padding();
        if (axis === 'tensor') for (const position of names.keys()) starts[position] = position * steps[axis];
        extent = steps[axis] * sizes[axis];
      }
    }
    const place = (): KvPlace => {
      const segment = draw(0, 1);
      const offset = ends[segment] + padding();
      ends[segment] = offset + extent;
      return { segment: segment + 7, offset };
    };
    const places = layersApart ? shape.layers.map(place) : [place()];
    for (const [position, name] of names.entries()) {
      const moved = places.map(({ segment, offset }) => ({ segment, offset: offset + starts[position] }));
      tensors[name] = {
        dtype: cache.tensors[name].dtype,
        elements: cache.tensors[name].elements,
        strides: {
          block: steps.block,
          token: token ? steps.token : null,
          head: head ? steps.head : null,
          layer: layersApart ? undefined : steps.layer,
        },
        at: layersApart ? moved : moved[0],
      };
    }
  }
  const headed = cache.heads > 0;
  return {
    segments: ends.map((length, index) => ({ id: index + 7, length: length + padding() })),
    tensorParallel: { rank: shape.rank, size: shape.size },
    groups: [
      {
        kind: cache.kind,
        layers: shape.layers,
        blockSize: shape.blockSize,
        blocks: shape.blocks,
        heads: headed ? cache.heads : undefined,
        window: cache.window,
        tensors,
      },
    ],
  };
}

export function shuffled<T>(draw: Draw, items: readonly T[]): T[] {
  const list = [...items];
  for (let index = list.length - 1; index > 0; index--) {
    const other = draw(0, index);
    [list[index], list[other]] = [list[other], list[index]];
  }
  return list;
}

/** Bytes of every segment, by id, filled with noise that depends on `seed`. */
export function memories(layout: KvLayoutOptions, seed: number): Map<number, Uint8Array> {
  let state = seed >>> 0 || 1;
  return new Map(
    layout.segments.map(({ id, length }) => {
      const memory = new Uint8Array(length);
      for (let index = 0; index < length; index++) {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        memory[index] = state >>> 8;
      }
      return [id, memory];
    }),
  );
}

/** Where a cell lies, from the definition: layer, block, token in the block, head of the rank. */
export function cellAt(
  tensor: KvTensorOptions,
  layer: number,
  block: number,
  token: number,
  head: number,
): { segment: number; offset: number } {
  const { strides, at } = tensor;
  const own = Array.isArray(at) ? (at as KvPlace[])[layer] : (at as KvPlace);
  const shift = Array.isArray(at) ? 0 : layer * (strides.layer ?? 0);
  return {
    segment: own.segment,
    offset: own.offset + shift + block * strides.block + token * (strides.token ?? 0) + head * (strides.head ?? 0),
  };
}

export interface Transfer {
  sourceBlocks: ArrayLike<number>;
  destinationBlocks: ArrayLike<number>;
  from: number;
  to: number;
  layers: (layer: number) => boolean;
  /** Ids that stand for no block. */
  holes: (id: number) => boolean;
}

/** One byte that moves, as `segment:offset` on each side. */
export type Moves = Map<string, { sourceSegment: number; sourceOffset: number; segment: number; offset: number }>;

/** Every byte that a transfer moves, by destination, element by element. */
export function naiveMoves(cache: Cache, source: KvLayoutOptions, destination: KvLayoutOptions, job: Transfer): Moves {
  const moves: Moves = new Map();
  const [from, to] = [source.groups[0], destination.groups[0]];
  const ranks = [source.tensorParallel!, destination.tensorParallel!];
  const [theirs, ours] = ranks.map(({ rank, size }) => headsOf(cache.heads, rank, size));
  const [sourceLayers, destinationLayers] = [from.layers as number[], to.layers as number[]];
  for (const layer of destinationLayers.filter((each) => sourceLayers.includes(each) && job.layers(each))) {
    for (let token = job.from; token < job.to; token++) {
      const sourceBlock = job.sourceBlocks[Math.floor(token / from.blockSize)];
      const destinationBlock = job.destinationBlocks[Math.floor(token / to.blockSize)];
      if (job.holes(sourceBlock) || job.holes(destinationBlock)) continue;
      for (const [name, logical] of Object.entries(cache.tensors)) {
        for (const head of logical.head ? ours.filter((each) => theirs.includes(each)) : [0]) {
          const a = cellAt(
            from.tensors[name],
            sourceLayers.indexOf(layer),
            sourceBlock,
            token % from.blockSize,
            logical.head ? theirs.indexOf(head) : 0,
          );
          const b = cellAt(
            to.tensors[name],
            destinationLayers.indexOf(layer),
            destinationBlock,
            token % to.blockSize,
            logical.head ? ours.indexOf(head) : 0,
          );
          for (let byte = 0; byte < cellBytes(logical); byte++) {
            moves.set(`${b.segment}:${b.offset + byte}`, {
              sourceSegment: a.segment,
              sourceOffset: a.offset + byte,
              segment: b.segment,
              offset: b.offset + byte,
            });
          }
        }
      }
    }
  }
  return moves;
}

/** The least number of contiguous copies that do the moves: maximal runs in order of destination. */
export function fewestRuns(moves: Moves): number {
  const list = [...moves.values()].sort((a, b) => a.segment - b.segment || a.offset - b.offset);
  return list.filter((move, index) => {
    const last = list[index - 1];
    return !(
      last !== undefined &&
      last.segment === move.segment &&
      last.sourceSegment === move.sourceSegment &&
      last.offset + 1 === move.offset &&
      last.sourceOffset + 1 === move.sourceOffset
    );
  }).length;
}
