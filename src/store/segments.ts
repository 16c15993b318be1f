/** The segments that a store is given or makes: sizes and names checked, memory made, virtual addresses handed out. */
import { bytes as checkBytes, options as object, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import { callersMemory, MAX_OWN_BYTES, ownMemory, type SegmentMemory } from './memory.js';
import { parseSize } from './size.js';

export interface SegmentOptions {
  /** Unique in the cluster. Default: random. */
  name?: string;
  /** Bytes of memory that the store makes, or a size such as "512MB"; at most MAX_OWN_BYTES. */
  length?: number | string;
  /** Memory of the caller instead, which nobody else may write from now on. It must not be detached or resized. */
  memory?: Uint8Array;
}

export interface OwnSegment {
  readonly name: string | undefined;
  readonly length: number;
  /** Of the caller, where he brought it. */
  readonly given?: Uint8Array;
  /** Makes the memory. */
  memory(): SegmentMemory;
}

const MiB = 2 ** 20;
const TOP = 2 ** 47;
// Memory of JavaScript has no address: segments of this process lie one behind the other in a space of their own.
let nextBase = 2 ** 40;

/** A virtual address for a segment: no other of this process overlaps it. */
export function virtualBase(length: number): number {
  const base = nextBase;
  nextBase += Math.ceil(length / MiB) * MiB;
  if (nextBase > TOP) throw errors.outOfMemory('virtual addresses of segments', nextBase);
  return base;
}

/** @throws ERR_INVALID_ARGUMENT naming the field */
export function parseSegment(argument: string, spec: SegmentOptions): OwnSegment {
  object(argument, spec);
  if (spec === undefined) throw errors.invalidArgument(argument, spec, 'an object');
  const name = spec.name === undefined ? undefined : string(`${argument}.name`, spec.name);
  if (spec.memory !== undefined) {
    const memory = checkBytes(`${argument}.memory`, spec.memory);
    const resizable = (memory.buffer as { resizable?: boolean }).resizable === true;
    if (resizable || memory.length === 0) {
      throw errors.invalidArgument(`${argument}.memory`, memory, 'at least one byte, over a buffer of fixed size');
    }
    return { name, length: memory.length, given: memory, memory: () => callersMemory(memory) };
  }
  const length = parseSize(`${argument}.length`, spec.length);
  if (length > MAX_OWN_BYTES) {
    throw errors.invalidArgument(`${argument}.length`, spec.length, `at most ${MAX_OWN_BYTES} bytes a segment`);
  }
  return { name, length, memory: () => ownMemory(length) };
}

/** @throws ERR_INVALID_ARGUMENT naming the segment and the field */
export function parseSegments(segments: number | string | readonly SegmentOptions[]): OwnSegment[] {
  if (Array.isArray(segments)) return segments.map((spec, i) => parseSegment(`segments[${i}]`, spec));
  const total = parseSize('segments', segments);
  const count = Math.ceil(total / MAX_OWN_BYTES);
  return Array.from({ length: count }, (_, i) => {
    // As even as can be: an object has to fit into one of them.
    const length = Math.floor((total * (i + 1)) / count) - Math.floor((total * i) / count);
    return { name: undefined, length, memory: () => ownMemory(length) };
  });
}
