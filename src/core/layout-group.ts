/**
 * One group of a KV cache: layers that share block ids. A layer's share of it is a few tensors (keys, values, scales, an
 * opaque state), and a tensor is cells of contiguous elements at
 *
 *     offset of the layer + block * strides.block + token * strides.token + head * strides.head      (bytes)
 *
 * Strides come from the engine's tensors: no order of axes is assumed, so fused keys and values, any permutation,
 * padding and one storage for all layers are all only numbers. Here they are read and checked.
 */
import { boolean, integer, oneOf, options } from './check.js';
import { errors } from './errors.js';
import { checkDisjoint, checkOverlap } from './layout-overlap.js';

/**
 * full: every token of the context. sliding: only the last `window` tokens matter. mla: a latent vector per token, no
 * heads. state: one opaque row per block (Mamba and other linear attention).
 */
export type KvKind = 'full' | 'sliding' | 'mla' | 'state';
const KINDS: readonly KvKind[] = ['full', 'sliding', 'mla', 'state'];

/** Bytes per element. */
export const ITEM_BYTES = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  float8_e4m3fn: 1,
  float8_e4m3fnuz: 1,
  float8_e5m2: 1,
  float8_e5m2fnuz: 1,
  float8_e8m0fnu: 1,
  int32: 4,
  int8: 1,
  uint8: 1,
};
/** Element types, by torch's names; opaque bytes are `uint8`. */
export type KvDtype = keyof typeof ITEM_BYTES;

/** From `from` up to but without `to`. */
export interface KvRange {
  from: number;
  to: number;
}

/** A position in registered memory: `offset` bytes into the segment with this id. */
export interface KvPlace {
  segment: number;
  offset: number;
}

export interface KvTensorOptions {
  dtype: KvDtype;
  /** Contiguous elements of a cell: the head dimension of a key, the row length of a state, 1 for a scale. */
  elements: number;
  /**
   * Bytes from one index to the next. `null` says that the tensor does not vary along that axis: `token: null` is one
   * cell per block (a scale per block), `head: null` one cell for all heads. `layer` goes with a single place in `at`.
   */
  strides: { block: number; token?: number | null; head?: number | null; layer?: number };
  /** Where block 0 of each layer starts, in the order of the group's `layers`; or of the first layer alone. */
  at: KvPlace | readonly KvPlace[];
}

export interface KvGroupOptions {
  kind: KvKind;
  /** Global indices of the layers that this rank (its pipeline stage) holds. May be empty. */
  layers: readonly number[] | KvRange;
  /** Tokens per block. */
  blockSize: number;
  /** Blocks in the cache: ids run from 0 to `blocks - 1`. */
  blocks: number;
  /** KV heads of the whole model; none for mla and state, and for a sliding group of latent vectors. */
  heads?: number;
  /** Heads in the tensors of this rank, where known: checked against `heads` and the tensor-parallel size. */
  localHeads?: number;
  /** Sliding groups: tokens that attention looks back, the current one included. */
  window?: number;
  /** Sliding and state groups: the id that stands for "no block here". Default 0, vLLM's null block. */
  nullBlock?: number | null;
  /** State groups: every tensor-parallel rank holds the whole state. Default false: each holds its own shard. */
  replicated?: boolean;
  /** By name: `k`, `v`, `kScale`, … Tensors of the same name correspond. */
  tensors: Readonly<Record<string, KvTensorOptions>>;
}

/** A tensor as planning uses it: a cell of `bytes`, strides in bytes (null: does not vary), a place per layer. */
export interface KvTensor {
  readonly dtype: KvDtype;
  readonly elements: number;
  readonly bytes: number;
  readonly block: number;
  readonly token: number | null;
  readonly head: number | null;
  readonly places: readonly KvPlace[];
}

export interface KvGroup {
  readonly kind: KvKind;
  readonly layers: readonly number[];
  readonly blockSize: number;
  readonly blocks: number;
  /** KV heads of the model; 0 where the group has none. */
  readonly heads: number;
  /** The heads that this rank holds; [0, 1) where the group has none. */
  readonly headRange: KvRange;
  readonly window: number | null;
  readonly nullBlock: number | null;
  readonly replicated: boolean;
  readonly tensors: ReadonlyMap<string, KvTensor>;
}

const MAX_BLOCK_SIZE = 1 << 20;
const MAX_BLOCKS = 0xffff_fffe;
/** -1 as a u32: never a block, whatever a group calls its null block. */
export const NO_BLOCK = 0xffff_ffff;
const MAX_HEADS = 1 << 16;
export const MAX_LAYERS = 1 << 14;
export const MAX_RANKS = 1 << 16;

/**
 * The heads that tensor-parallel `rank` of `size` holds of `heads`: an equal share, or one head, held by `size / heads`
 * neighbouring ranks, where there are more ranks than heads (as vLLM's QKVParallelLinear does). Throws
 * ERR_INVALID_ARGUMENT where neither divides the other.
 */
export function headRange(heads: number, rank: number, size: number): KvRange {
  integer('heads', heads, 1, MAX_HEADS);
  integer('size', size, 1, MAX_RANKS);
  integer('rank', rank, 0, size - 1);
  if (heads % size !== 0 && size % heads !== 0) {
    throw errors.invalidArgument('heads', heads, `a multiple or a divisor of the ${size} tensor-parallel ranks`);
  }
  const share = Math.max(1, heads / size);
  const from = Math.floor((rank * heads) / size);
  return { from, to: from + share };
}

/** Checks for an array of `min` to `max` elements. */
export function list(argument: string, value: unknown, min: number, max: number): asserts value is readonly unknown[] {
  if (!Array.isArray(value) || value.length < min || value.length > max) {
    throw errors.invalidArgument(argument, value, `an array of ${min} to ${max}`);
  }
}

/** An object that must be given. */
export function record<T extends object>(argument: string, value: T): T {
  if (value === undefined) throw errors.invalidArgument(argument, value, 'an object');
  return options(argument, value);
}

function readLayers(argument: string, value: readonly number[] | KvRange): number[] {
  if (!Array.isArray(value)) {
    const range = record(argument, value as KvRange);
    const from = integer(`${argument}.from`, range.from, 0, MAX_LAYERS);
    const to = integer(`${argument}.to`, range.to, from, MAX_LAYERS);
    return Array.from({ length: to - from }, (_, index) => from + index);
  }
  list(argument, value, 0, MAX_LAYERS);
  const seen = new Set<number>();
  for (const [index, layer] of value.entries()) {
    integer(`${argument}[${index}]`, layer, 0, MAX_LAYERS - 1);
    if (seen.has(layer)) throw errors.invalidArgument(`${argument}[${index}]`, layer, 'listed once');
    seen.add(layer);
  }
  return [...value];
}

/** Reads and checks a group of a rank; `lengths` are the segments', by id. */
export function readGroup(
  path: string,
  group: KvGroupOptions,
  { rank, size }: { rank: number; size: number },
  lengths: Map<number, number>,
): KvGroup {
  record(path, group);
  const kind = oneOf(`${path}.kind`, group.kind, KINDS);
  const blockSize = integer(`${path}.blockSize`, group.blockSize, 1, MAX_BLOCK_SIZE);
  const blocks = integer(`${path}.blocks`, group.blocks, 1, MAX_BLOCKS);
  const layers = readLayers(`${path}.layers`, group.layers);

  const headed = kind === 'full' || (kind === 'sliding' && group.heads !== undefined);
  if (!headed && group.heads !== undefined) {
    throw errors.invalidArgument(`${path}.heads`, group.heads, `left out: a group of kind ${kind} has no heads`);
  }
  const heads = headed ? integer(`${path}.heads`, group.heads, 1, MAX_HEADS) : 0;
  if (headed && heads % size !== 0 && size % heads !== 0) {
    throw errors.invalidArgument(`${path}.heads`, heads, `a multiple or a divisor of tensorParallel.size = ${size}`);
  }
  const range = headed ? headRange(heads, rank, size) : { from: 0, to: 1 };
  const local = range.to - range.from;
  if (group.localHeads !== undefined && group.localHeads !== local) {
    throw errors.invalidArgument(`${path}.localHeads`, group.localHeads, `${local} (${heads} heads on ${size} ranks)`);
  }

  const windowed = kind === 'sliding';
  if (!windowed && group.window !== undefined) {
    throw errors.invalidArgument(`${path}.window`, group.window, 'left out: only a sliding group has a window');
  }
  const holed = kind === 'sliding' || kind === 'state';
  if (!holed && group.nullBlock !== undefined && group.nullBlock !== null) {
    throw errors.invalidArgument(
      `${path}.nullBlock`,
      group.nullBlock,
      `left out: a group of kind ${kind} has no holes`,
    );
  }
  if (kind !== 'state' && group.replicated !== undefined) {
    throw errors.invalidArgument(`${path}.replicated`, group.replicated, 'left out: only a state is opaque');
  }

  const shape: TensorShape = { kind, headed, layers: layers.length, blocks, tokens: blockSize, heads: local };
  const tensors = new Map<string, KvTensor>();
  for (const [name, tensor] of Object.entries(record(`${path}.tensors`, group.tensors))) {
    tensors.set(name, readTensor(`${path}.tensors.${name}`, tensor, shape, lengths));
  }
  checkDisjoint(path, tensors, shape);
  if (tensors.size === 0) throw errors.invalidArgument(`${path}.tensors`, group.tensors, 'at least one tensor');

  return {
    kind,
    layers,
    blockSize,
    blocks,
    heads,
    headRange: range,
    window: windowed ? integer(`${path}.window`, group.window, 1, 0x7fff_ffff) : null,
    nullBlock:
      holed && group.nullBlock !== null ? integer(`${path}.nullBlock`, group.nullBlock ?? 0, 0, NO_BLOCK) : null,
    replicated: group.replicated === undefined ? false : boolean(`${path}.replicated`, group.replicated),
    tensors,
  };
}

/** The options that read as this group: the checked values, not the object that the caller may have changed since. */
export function groupOptions(group: KvGroup): KvGroupOptions {
  const { kind, layers, blockSize, blocks, heads, window, nullBlock, replicated } = group;
  const tensors = [...group.tensors].map(([name, { dtype, elements, block, token, head, places }]) => [
    name,
    { dtype, elements, strides: { block, token, head }, at: places },
  ]);
  return {
    kind,
    layers,
    blockSize,
    blocks,
    heads: heads > 0 ? heads : undefined,
    window: window ?? undefined,
    nullBlock,
    replicated: kind === 'state' ? replicated : undefined,
    tensors: Object.fromEntries(tensors),
  };
}

interface TensorShape {
  kind: KvKind;
  headed: boolean;
  layers: number;
  blocks: number;
  tokens: number;
  heads: number;
}

function readTensor(path: string, tensor: KvTensorOptions, shape: TensorShape, lengths: Map<number, number>): KvTensor {
  record(path, tensor);
  const dtype = oneOf(`${path}.dtype`, tensor.dtype, Object.keys(ITEM_BYTES) as KvDtype[]);
  const elements = integer(`${path}.elements`, tensor.elements, 1, 0x7fff_ffff);
  const bytes = elements * ITEM_BYTES[dtype];
  const strides = record(`${path}.strides`, tensor.strides);
  const block = stride(`${path}.strides.block`, strides.block);
  const token = axis(`${path}.strides.token`, strides.token, shape.kind !== 'state', 'a state has no tokens');
  const head = axis(`${path}.strides.head`, strides.head, shape.headed, 'the group has no heads');
  const places = readPlaces(path, tensor, shape.layers);

  const axes: [string, number, number][] = [['block', shape.blocks, block]];
  if (token !== null) axes.push(['token', shape.tokens, token]);
  if (head !== null) axes.push(['head', shape.heads, head]);
  const extent = checkOverlap(path, bytes, axes);
  for (const [index, { segment, offset }] of places.entries()) {
    const length = lengths.get(segment);
    if (length === undefined) throw errors.invalidArgument(`${path}.at[${index}].segment`, segment, 'a known segment');
    if (!(offset + extent <= length)) {
      const most = `at most ${length - extent}: the tensor spans ${extent} of the ${length} bytes of segment ${segment}`;
      throw errors.invalidArgument(`${path}.at[${index}].offset`, offset, most);
    }
  }
  if (strides.layer !== undefined) checkOverlap(path, bytes, [...axes, ['layer', places.length, strides.layer]]);
  return { dtype, elements, bytes, block, token, head, places };
}

function stride(argument: string, value: unknown): number {
  return integer(argument, value, 0, Number.MAX_SAFE_INTEGER);
}

/** A stride that must be given, if only as null, where the group has the axis, and must not be where it has not. */
function axis(argument: string, value: number | null | undefined, present: boolean, why: string): number | null {
  if (!present && value !== undefined && value !== null) {
    throw errors.invalidArgument(argument, value, `left out: ${why}`);
  }
  return value === null || !present ? null : stride(argument, value);
}

function readPlaces(path: string, { at, strides }: KvTensorOptions, layers: number): KvPlace[] {
  const check = (argument: string, place: KvPlace): KvPlace => {
    record(argument, place);
    const segment = integer(`${argument}.segment`, place.segment, 0, 0xffff_fffe);
    return { segment, offset: integer(`${argument}.offset`, place.offset, 0, Number.MAX_SAFE_INTEGER) };
  };
  if (Array.isArray(at)) {
    list(`${path}.at`, at, layers, layers);
    if (strides.layer !== undefined) {
      throw errors.invalidArgument(`${path}.strides.layer`, strides.layer, 'left out: every layer has its own place');
    }
    return Array.from(at as KvPlace[], (place, index) => check(`${path}.at[${index}]`, place));
  }
  const first = check(`${path}.at`, at as KvPlace);
  if (layers > 1 || strides.layer !== undefined) stride(`${path}.strides.layer`, strides.layer);
  const step = strides.layer ?? 0;
  return Array.from({ length: layers }, (_, index) => ({
    segment: first.segment,
    offset: first.offset + index * step,
  }));
}
