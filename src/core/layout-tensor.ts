/**
 * From an engine's tensor, as torch describes it (shape, strides in elements, data type), to the tensors of a KvLayout
 * group: name the axes in the order of the shape and the rest is arithmetic.
 */
import { integer, oneOf, string } from './check.js';
import { errors } from './errors.js';
import {
  ITEM_BYTES,
  type KvDtype,
  type KvPlace,
  type KvTensorOptions,
  list,
  MAX_LAYERS,
  record,
} from './layout-group.js';

/**
 * kv: keys at index 0, values at 1. element: the cell, last. keyValue: keys and then values in one cell, last.
 * layer: several layers in one tensor. single: an axis of size 1 that says nothing (vLLM's one head of a latent vector).
 */
export type KvAxis = 'layer' | 'kv' | 'block' | 'token' | 'head' | 'element' | 'keyValue' | 'single';
const AXES: readonly KvAxis[] = ['layer', 'kv', 'block', 'token', 'head', 'element', 'keyValue', 'single'];

export interface TorchTensor {
  /** What each dimension is. `block` and a last `element` or `keyValue` are always there. */
  axes: readonly KvAxis[];
  shape: readonly number[];
  /** In elements, as `tensor.stride()` gives them. */
  strides: readonly number[];
  dtype: KvDtype;
  /** Where the tensor's first element lies; with one tensor per layer, each one's. */
  at: KvPlace | readonly KvPlace[];
  /** Name of the tensor where it is not keys and values. Default `latent`. */
  name?: string;
  /** Tokens per block, where no axis says it: a state has none. */
  blockSize?: number;
  /** Of a `keyValue` cell, elements that are the key. Default half. */
  keyElements?: number;
}

/** What a group takes over: `{ kind, layers, heads, ...fromTorch(…) }`. */
export interface TorchGroup {
  blocks: number;
  blockSize: number;
  localHeads?: number;
  tensors: Record<string, KvTensorOptions>;
}

/**
 * The group fields that a torch tensor gives. Throws ERR_INVALID_ARGUMENT where the axes do not fit the shape, or the
 * elements of a cell are not contiguous.
 */
export function fromTorch(tensor: TorchTensor): TorchGroup {
  if (typeof tensor !== 'object' || tensor === null) throw errors.invalidArgument('tensor', tensor, 'an object');
  const { axes, shape, strides, at } = tensor;
  const item = ITEM_BYTES[oneOf('dtype', tensor.dtype, Object.keys(ITEM_BYTES) as KvDtype[])];
  if (!Array.isArray(axes)) throw errors.invalidArgument('axes', axes, 'an array of axis names');
  for (const [name, numbers] of Object.entries({ shape, strides })) {
    if (!Array.isArray(numbers) || numbers.length !== axes.length) {
      throw errors.invalidArgument(name, numbers, `an array of ${axes.length}, one number per axis`);
    }
  }
  const sizes = new Map<KvAxis, { size: number; step: number }>();
  for (const [index, axis] of axes.entries()) {
    oneOf(`axes[${index}]`, axis, AXES);
    if (sizes.has(axis)) throw errors.invalidArgument(`axes[${index}]`, axis, 'named once');
    const size = integer(`shape[${index}]`, shape[index], 1, Number.MAX_SAFE_INTEGER);
    if (axis === 'single' && size !== 1)
      throw errors.invalidArgument(`shape[${index}]`, size, '1, as the axis is single');
    sizes.set(axis, { size, step: item * integer(`strides[${index}]`, strides[index], 0, Number.MAX_SAFE_INTEGER) });
  }
  const last = axes[axes.length - 1];
  if (last !== 'element' && last !== 'keyValue')
    throw errors.invalidArgument('axes', last, 'ended by element or keyValue');
  const cell = sizes.get(last) as { size: number; step: number };
  if (cell.size > 1 && cell.step !== item) {
    throw errors.invalidArgument(`strides[${axes.length - 1}]`, strides[axes.length - 1], '1: a cell is contiguous');
  }
  const block = sizes.get('block');
  if (block === undefined) throw errors.invalidArgument('axes', axes, 'one of them block');

  if (Array.isArray(at)) list('at', at, 0, MAX_LAYERS);
  const part = (elements: number, shift: number): KvTensorOptions => {
    return {
      dtype: tensor.dtype,
      elements,
      strides: {
        block: block.step,
        token: sizes.get('token')?.step ?? null,
        head: sizes.get('head')?.step ?? null,
        layer: sizes.get('layer')?.step,
      },
      at: Array.isArray(at)
        ? at.map((place, index) => moved(`at[${index}]`, place, shift))
        : moved('at', at as KvPlace, shift),
    };
  };
  const kv = sizes.get('kv');
  if (kv !== undefined && (kv.size !== 2 || last === 'keyValue')) {
    throw errors.invalidArgument('axes', axes, 'with one kv axis of size 2, or a keyValue axis');
  }
  let tensors: Record<string, KvTensorOptions>;
  if (kv !== undefined) {
    tensors = { k: part(cell.size, 0), v: part(cell.size, kv.step) };
  } else if (last === 'keyValue') {
    const keys = integer('keyElements', tensor.keyElements ?? cell.size / 2, 1, cell.size - 1);
    tensors = { k: part(keys, 0), v: part(cell.size - keys, keys * item) };
  } else {
    tensors = { [string('name', tensor.name ?? 'latent')]: part(cell.size, 0) };
  }
  const tokens = sizes.get('token')?.size;
  if (tokens !== undefined && tensor.blockSize !== undefined && tensor.blockSize !== tokens) {
    throw errors.invalidArgument('blockSize', tensor.blockSize, `left out or ${tokens}, which the token axis says`);
  }
  return {
    blocks: block.size,
    blockSize: tokens ?? integer('blockSize', tensor.blockSize, 1, Number.MAX_SAFE_INTEGER),
    localHeads: sizes.get('head')?.size,
    tensors,
  };
}

function moved(argument: string, place: KvPlace, shift: number): KvPlace {
  const { segment, offset } = record(argument, place);
  return { segment, offset: integer(`${argument}.offset`, offset, 0, Number.MAX_SAFE_INTEGER) + shift };
}
