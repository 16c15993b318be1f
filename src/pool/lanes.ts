/**
 * The arena: one SharedArrayBuffer cut into equal lanes. A batch owns a lane from its dispatch to its reply, so nothing
 * in it is locked: the pool writes the inputs, the worker reads them in place and writes the results after them.
 *
 *   | lane 0: inputs … top → results … | lane 1 … |
 *
 * What does not fit goes with the message instead; pages are touched only when used, so unused room costs no memory.
 */
import { type Ref, type TypedArray, VIEWS } from './wire.js';

export const LANE_BYTES = 1 << 20;
const ALIGN = 8;

type ViewConstructor = new (buffer: SharedArrayBuffer, offset: number, length: number) => TypedArray;

/** True where shared memory may be sent to another thread: Node and the like, and pages that are cross-origin isolated. */
export function canShare(): boolean {
  const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  return typeof SharedArrayBuffer !== 'undefined' && isolated !== false;
}

/** An array that is all of its buffer: a message would carry the rest along. */
export function alone(array: TypedArray): TypedArray {
  if (array.byteLength === array.buffer.byteLength) return array;
  // A Buffer of Node is a Uint8Array whose slice() is a view.
  return array instanceof Uint8Array ? new Uint8Array(array) : array.slice();
}

/** One lane as one side sees it while it fills it. */
export class Lane {
  readonly index: number;
  readonly #arena?: SharedArrayBuffer;
  readonly #end: number;
  top: number;

  /** `top` continues behind what the other side has written. */
  constructor(arena: SharedArrayBuffer | undefined, index: number, top = index * LANE_BYTES) {
    this.#arena = arena;
    this.index = index;
    this.#end = arena ? (index + 1) * LANE_BYTES : 0;
    this.top = top;
  }

  /** The array as it should cross: itself when its memory is shared, its copy's place, or itself when the lane is full. */
  place(array: TypedArray): TypedArray | Ref {
    if (!this.#arena) return alone(array);
    if (array.buffer instanceof SharedArrayBuffer) return array;
    const offset = this.top;
    const view = VIEWS.findIndex((type) => array instanceof type);
    if (view < 0 || offset + array.byteLength > this.#end) return alone(array);
    const ref = { view, offset, length: array.length };
    new Uint8Array(this.#arena, offset, array.byteLength).set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    );
    this.top = (offset + array.byteLength + ALIGN - 1) & -ALIGN;
    return ref;
  }

  /** Bytes of the lane that are taken. */
  get used(): number {
    return this.top - this.index * LANE_BYTES;
  }

  /** The array behind what crossed: in place for a place in the lane. */
  view(crossed: TypedArray | Ref): TypedArray {
    if (ArrayBuffer.isView(crossed)) return crossed;
    const View = VIEWS[crossed.view] as ViewConstructor;
    return new View(this.#arena as SharedArrayBuffer, crossed.offset, crossed.length);
  }

  /** The same, in memory of its own: the lane goes to another batch. */
  take(crossed: TypedArray | Ref): TypedArray {
    return ArrayBuffer.isView(crossed) ? crossed : this.view(crossed).slice();
  }
}
