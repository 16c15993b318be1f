/**
 * Offset allocators: who owns which bytes of a segment. They hand out offsets and never touch the memory itself, which
 * may be a GPU's or another machine's. The tables lie in the linear memory of one core instance for each set
 * (assembly/alloc): no object and no garbage for an allocation that is kept, 32 bytes for it and for each free region.
 *
 * Policy: good fit. Sizes are exact to the alignment, allocate and free take constant time, a freed region joins its free
 * neighbours at once. That nothing fits is an answer, not an error: the caller evicts something or takes another segment.
 */
import { options as checkOptions, integer, typedArray } from './check.js';
import { errors, MooncakeError } from './errors.js';
import { type Core, instantiate } from './wasm.js';

interface AllocExports {
  allocStart(segments: number, seed: number): number;
  allocWindow(): number;
  allocResult(): number;
  allocAddSegment(segment: number, base: number, capacity: number, alignment: number): number;
  allocRemoveSegment(segment: number): void;
  allocate(segment: number, size: number): number;
  allocateAt(segment: number, offset: number, size: number): number;
  allocateFirst(count: number, size: number): number;
  allocateMany(count: number): number;
  allocFree(handle: number): number;
  allocFreeMany(count: number): number;
  allocLocate(handle: number): number;
  allocFreeBytes(segment: number): number;
  allocFigures(segment: number): void;
}

/** Offsets stay below this: what a user-space address is, and exact in a JavaScript number. */
const MAX_OFFSET = 2 ** 47;
const MAX_SEGMENTS = 32768;
/** Entries of the batch window (assembly/alloc/classes.ts). */
const BATCH = 2048;

export interface AllocatorSetOptions {
  /** Segments that may be open at once, 1 to 32768. 6 KB of address space each, used when opened. Default 1024. */
  maxSegments?: number;
  /** Upper bound of the tables, in bytes; when they are full, an allocation that would need more does not fit. Default 4 GiB. */
  maxMetadataBytes?: number;
}

export interface SegmentOptions {
  /** Bytes in the segment, from `alignment` to 2^47. A remainder smaller than the alignment is not used. */
  length: number;
  /** Every offset and size is a multiple of it: a power of two up to 2^40. Default 1. */
  alignment?: number;
  /** Offset of the segment's first byte, a multiple of `alignment`; base + length is at most 2^47. Default 0. */
  base?: number;
}

export interface Allocation {
  readonly segment: number;
  readonly offset: number;
  /** Gives the range back; names this allocation alone, also after its bytes are given to another (docs/allocator.md). */
  readonly handle: number;
}

/** Results of a batch, entry for entry: offset and handle are -1 where nothing fitted. */
export interface Allocations {
  /** Entries that fitted. */
  count: number;
  offsets: Float64Array;
  handles: Float64Array;
}

export interface AllocatorFigures {
  /** Bytes that can be handed out: the length, less the remainder of the alignment. */
  capacity: number;
  /** Bytes handed out, rounded up to the alignment. */
  used: number;
  free: number;
  /** The largest size that one region can still serve. */
  largestFree: number;
  freeRegions: number;
  allocations: number;
  /** 1 - largestFree / free, the figure that Mooncake's benchmarks print; 0 when nothing is free. */
  fragmentation: number;
}

// Handles of different sets should differ, so that a foreign one is noticed: each set counts from another place.
let spread = 0;

function checkHandle(argument: string, handle: unknown): number {
  return integer(argument, handle, 0, Number.MAX_SAFE_INTEGER);
}

function notAllocated(argument: string, handle: number) {
  return errors.invalidArgument(argument, handle, 'the handle of an allocation that is not freed yet');
}

function full(what: string, value: number, argument = 'maxMetadataBytes') {
  return new MooncakeError('ERR_OUT_OF_MEMORY', `${what} would need more than ${argument} ${value}`, {
    argument,
    value,
  });
}

function checkSizes(sizes: unknown): asserts sizes is Float64Array | Uint32Array {
  const fits = sizes instanceof Float64Array || sizes instanceof Uint32Array;
  const array = typedArray<Float64Array | Uint32Array>('sizes', sizes, fits, 'a Float64Array or Uint32Array');
  for (let i = 0; i < array.length; i++) {
    const size = array[i];
    if (!(size >= 1 && size <= MAX_OFFSET && size % 1 === 0)) integer(`sizes[${i}]`, size, 1, MAX_OFFSET);
  }
}

/** Allocators for many segments in one instance: what a master keeps. Segments are numbered from 0. */
export class AllocatorSet {
  readonly maxSegments: number;
  readonly #core: Core<AllocExports>;
  readonly #open: Uint8Array;
  /** Window and result, as indices of 32-bit and 64-bit elements. */
  readonly #segments: number;
  readonly #sizes: number;
  readonly #offsets: number;
  readonly #handles: number;
  readonly #result: number;
  #count = 0;
  #f64: Float64Array;

  /** @throws ERR_INVALID_ARGUMENT, ERR_OUT_OF_MEMORY when maxMetadataBytes does not hold the segments' tables */
  constructor(options?: AllocatorSetOptions) {
    const { maxSegments = 1024, maxMetadataBytes = 2 ** 32 } = checkOptions('options', options);
    this.maxSegments = integer('maxSegments', maxSegments, 1, MAX_SEGMENTS);
    integer('maxMetadataBytes', maxMetadataBytes, 2 ** 18, 2 ** 32);
    this.#core = instantiate<AllocExports>({ maxBytes: maxMetadataBytes });
    const { exports } = this.#core;
    spread = (spread + 0x9e3779b1) >>> 0;
    if (!exports.allocStart(maxSegments, spread)) throw full(`${maxSegments} segments`, maxMetadataBytes);
    this.#open = new Uint8Array(maxSegments);
    this.#f64 = this.#core.f64;
    const window = exports.allocWindow() >>> 0;
    this.#segments = window >>> 2;
    this.#sizes = (window + 4 * BATCH) >>> 3;
    this.#offsets = this.#sizes + BATCH;
    this.#handles = this.#offsets + BATCH;
    this.#result = exports.allocResult() >>> 3;
  }

  // Asking the memory for its buffer costs a third of an allocation; a private memory's old view is empty once it grew.
  get #cells(): Float64Array {
    return this.#f64.length > 0 ? this.#f64 : (this.#f64 = this.#core.f64);
  }

  /** Bytes of linear memory that the tables have grown to. */
  get metadataBytes(): number {
    return this.#core.byteLength;
  }

  /** Open segments. */
  get segmentCount(): number {
    return this.#count;
  }

  /**
   * Opens a segment, all of it free; its number, the lowest that is not open.
   * @throws ERR_INVALID_ARGUMENT; ERR_OUT_OF_MEMORY when maxSegments are open or the tables are full
   */
  addSegment(options: SegmentOptions): number {
    const { length, alignment = 1, base = 0 } = checkOptions('options', options);
    integer('alignment', alignment, 1, 2 ** 40);
    if (!Number.isInteger(Math.log2(alignment))) throw errors.invalidArgument('alignment', alignment, 'a power of two');
    integer('length', length, alignment, MAX_OFFSET);
    integer('base', base, 0, MAX_OFFSET - length);
    if (base % alignment !== 0) throw errors.invalidArgument('base', base, `a multiple of the alignment ${alignment}`);
    const segment = this.#open.indexOf(0);
    if (segment < 0) throw full('another segment', this.maxSegments, 'maxSegments');
    const capacity = length - (length % alignment);
    if (!this.#core.exports.allocAddSegment(segment, base, capacity, alignment)) {
      throw full('another segment', this.#core.byteLength);
    }
    this.#open[segment] = 1;
    this.#count++;
    return segment;
  }

  /** Closes a segment; the handles of what was allocated there are stale from then on. Linear in its regions. */
  removeSegment(segment: number): void {
    this.#checkSegment('segment', segment);
    this.#core.exports.allocRemoveSegment(segment);
    this.#open[segment] = 0;
    this.#count--;
  }

  /** `size` bytes of a segment, or undefined when no free region is large enough. */
  allocate(segment: number, size: number): Allocation | undefined {
    this.#checkSegment('segment', segment);
    integer('size', size, 1, MAX_OFFSET);
    const offset = this.#core.exports.allocate(segment, size);
    return offset < 0 ? undefined : { segment, offset, handle: this.#cells[this.#result] };
  }

  /**
   * These `size` bytes of a segment, from `offset` on, which must be a multiple of its alignment: for what lies there
   * already, as when a client mounts its memory again. Undefined where a byte is in use or outside the segment. Constant
   * time for one call after another in the order of offsets, else linear in the regions between them.
   */
  allocateAt(segment: number, offset: number, size: number): Allocation | undefined {
    this.#checkSegment('segment', segment);
    integer('offset', offset, 0, MAX_OFFSET);
    integer('size', size, 1, MAX_OFFSET);
    if (!this.#core.exports.allocateAt(segment, offset, size)) return undefined;
    return { segment, offset, handle: this.#cells[this.#result] };
  }

  /** `size` bytes of the first segment of the list that has them, or undefined. */
  allocateFirst(segments: Uint32Array | readonly number[], size: number): Allocation | undefined {
    integer('size', size, 1, MAX_OFFSET);
    if (!Array.isArray(segments)) {
      typedArray('segments', segments, segments instanceof Uint32Array, 'a Uint32Array or an array of segment numbers');
    }
    for (let i = 0; i < segments.length; i++) this.#checkSegment(`segments[${i}]`, segments[i]);
    for (let start = 0; start < segments.length; start += BATCH) {
      const part = segments.slice(start, start + BATCH);
      this.#core.u32.set(part, this.#segments);
      const place = this.#core.exports.allocateFirst(part.length, size);
      if (place < 0) continue;
      const f64 = this.#cells;
      return { segment: part[place], offset: f64[this.#offsets], handle: f64[this.#result] };
    }
    return undefined;
  }

  /**
   * Allocates each of `sizes` on its own, all from one segment or each from the segment at its place. Entries that do
   * not fit are -1; the others stand. `into` takes the results of at least as many entries, without new arrays.
   */
  allocateMany(
    segments: number | Uint32Array,
    sizes: Float64Array | Uint32Array,
    into?: Omit<Allocations, 'count'>,
  ): Allocations {
    checkSizes(sizes);
    if (typeof segments === 'number') {
      this.#checkSegment('segments', segments);
    } else {
      typedArray(
        'segments',
        segments,
        segments instanceof Uint32Array,
        'the number of an open segment, or a Uint32Array of them',
      );
      if (segments.length !== sizes.length) {
        throw errors.invalidArgument('segments', segments, `as long as sizes (${sizes.length})`);
      }
      for (let i = 0; i < segments.length; i++) {
        if (this.#open[segments[i]] !== 1) this.#checkSegment(`segments[${i}]`, segments[i]);
      }
    }
    const { offsets, handles } =
      into === undefined
        ? { offsets: new Float64Array(sizes.length), handles: new Float64Array(sizes.length) }
        : checkOptions('into', into);
    for (const [name, array] of Object.entries({ offsets, handles })) {
      const expected = `a Float64Array of at least ${sizes.length} elements`;
      typedArray(`into.${name}`, array, array instanceof Float64Array, expected);
      if (array.length < sizes.length) throw errors.invalidArgument(`into.${name}`, array, expected);
    }
    let count = 0;
    for (let start = 0; start < sizes.length; start += BATCH) {
      const length = Math.min(BATCH, sizes.length - start);
      const { u32 } = this.#core;
      if (typeof segments === 'number') u32.fill(segments, this.#segments, this.#segments + length);
      else u32.set(segments.subarray(start, start + length), this.#segments);
      this.#cells.set(sizes.subarray(start, start + length), this.#sizes);
      count += this.#core.exports.allocateMany(length);
      const results = this.#cells;
      offsets.set(results.subarray(this.#offsets, this.#offsets + length), start);
      handles.set(results.subarray(this.#handles, this.#handles + length), start);
    }
    return { count, offsets, handles };
  }

  /** @throws ERR_INVALID_ARGUMENT where the handle names nothing in use: freed before, or of another allocator */
  free(handle: number): void {
    checkHandle('handle', handle);
    if (!this.#core.exports.allocFree(handle)) throw notAllocated('handle', handle);
  }

  /**
   * Frees a batch; entries of -1 (what did not fit) are passed over.
   * @throws ERR_INVALID_ARGUMENT naming the first entry that is no handle in use; those before it are free
   */
  freeMany(handles: Float64Array): void {
    typedArray('handles', handles, handles instanceof Float64Array, 'a Float64Array');
    for (let i = 0; i < handles.length; i++) {
      const handle = handles[i];
      if (!(handle >= -1 && handle <= Number.MAX_SAFE_INTEGER && handle % 1 === 0))
        checkHandle(`handles[${i}]`, handle);
    }
    for (let at = 0; at < handles.length; ) {
      const f64 = this.#cells;
      const start = at;
      let count = 0;
      for (; at < handles.length && count < BATCH; at++)
        if (handles[at] !== -1) f64[this.#sizes + count++] = handles[at];
      const freed = this.#core.exports.allocFreeMany(count);
      if (freed === count) continue;
      let bad = start;
      for (let seen = 0; handles[bad] === -1 || seen++ < freed; ) bad++;
      throw notAllocated(`handles[${bad}]`, handles[bad]);
    }
  }

  /** Where an allocation lies and the bytes it holds, or undefined when the handle names nothing in use. */
  locate(handle: number): (Allocation & { size: number }) | undefined {
    checkHandle('handle', handle);
    const segment = this.#core.exports.allocLocate(handle);
    if (segment < 0) return undefined;
    const f64 = this.#cells;
    return { segment, offset: f64[this.#offsets], size: f64[this.#handles], handle };
  }

  /** Bytes of a segment that are not handed out, in constant time: for policies that choose the emptiest segment. */
  freeBytes(segment: number): number {
    this.#checkSegment('segment', segment);
    return this.#core.exports.allocFreeBytes(segment);
  }

  /** The state of a segment. All but `largestFree` in constant time: it walks the largest regions, those within 3 %. */
  figures(segment: number): AllocatorFigures {
    this.#checkSegment('segment', segment);
    this.#core.exports.allocFigures(segment);
    const [capacity, used, largestFree, freeRegions, allocations] = this.#cells.subarray(this.#sizes, this.#sizes + 5);
    const free = capacity - used;
    const fragmentation = free === 0 ? 0 : 1 - largestFree / free;
    return { capacity, used, free, largestFree, freeRegions, allocations, fragmentation };
  }

  #checkSegment(argument: string, segment: unknown): void {
    if (typeof segment !== 'number' || this.#open[segment] !== 1) {
      throw errors.invalidArgument(argument, segment, 'the number of an open segment');
    }
  }
}

/** The allocator of one segment; the methods are those of AllocatorSet without the segment. */
export class OffsetAllocator {
  readonly #set: AllocatorSet;
  readonly #segment: number;

  /** @throws ERR_INVALID_ARGUMENT */
  constructor(options: SegmentOptions & Pick<AllocatorSetOptions, 'maxMetadataBytes'>) {
    const { maxMetadataBytes } = checkOptions('options', options);
    this.#set = new AllocatorSet({ maxSegments: 1, maxMetadataBytes });
    this.#segment = this.#set.addSegment(options);
  }

  get metadataBytes(): number {
    return this.#set.metadataBytes;
  }

  figures(): AllocatorFigures {
    return this.#set.figures(this.#segment);
  }

  allocate(size: number): Allocation | undefined {
    return this.#set.allocate(this.#segment, size);
  }

  allocateAt(offset: number, size: number): Allocation | undefined {
    return this.#set.allocateAt(this.#segment, offset, size);
  }

  allocateMany(sizes: Float64Array | Uint32Array, into?: Omit<Allocations, 'count'>): Allocations {
    return this.#set.allocateMany(this.#segment, sizes, into);
  }

  free(handle: number): void {
    this.#set.free(handle);
  }

  freeMany(handles: Float64Array): void {
    this.#set.freeMany(handles);
  }

  locate(handle: number): (Allocation & { size: number }) | undefined {
    return this.#set.locate(handle);
  }
}
