// The offset allocator against a naive model: a list of live ranges, whose gaps are the free regions.
import fc from 'fast-check';
import { AllocatorSet, OffsetAllocator } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { rejects } from '../support/rejects.js';

interface Range {
  offset: number;
  size: number;
  handle: number;
}

/** Sizes of the free regions between `live` ranges, which must not overlap or leave [base, base + capacity). */
function gaps(live: Range[], base: number, capacity: number): number[] {
  const sorted = [...live].sort((a, b) => a.offset - b.offset);
  const found: number[] = [];
  let at = base;
  for (const { offset, size } of sorted) {
    assert.ok(offset >= at, `offset ${offset} overlaps what ends at ${at}`);
    if (offset > at) found.push(offset - at);
    at = offset + size;
  }
  assert.ok(at <= base + capacity, `${at} is behind the segment's end`);
  if (at < base + capacity) found.push(base + capacity - at);
  return found;
}

function model(live: Range[], base: number, capacity: number) {
  const free = gaps(live, base, capacity);
  const used = live.reduce((sum, range) => sum + range.size, 0);
  const largestFree = Math.max(0, ...free);
  return {
    capacity,
    used,
    free: capacity - used,
    largestFree,
    freeRegions: free.length,
    allocations: live.length,
    fragmentation: used === capacity ? 0 : 1 - largestFree / (capacity - used),
  };
}

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const segment = fc.record({
  alignment: fc.integer({ min: 0, max: 12 }).map((bits) => 2 ** bits),
  units: fc.integer({ min: 1, max: 400 }),
  remainder: fc.double({ min: 0, max: 0.99, noNaN: true }),
  base: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2 ** 32 })),
});

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ free: fc.constant(false), pick: fc.double({ min: 0, max: 1, noNaN: true }) }) },
  {
    weight: 2,
    arbitrary: fc.record({ free: fc.constant(true), pick: fc.double({ min: 0, max: 0.999, noNaN: true }) }),
  },
);

test('any sequence: no overlap, no loss, sizes exact to the alignment, figures as a model counts them', () => {
  fc.assert(
    fc.property(segment, fc.array(step, { maxLength: 120 }), ({ alignment, units, remainder, base }, steps) => {
      const start = base - (base % alignment);
      const capacity = units * alignment;
      const allocator = new OffsetAllocator({
        length: capacity + Math.floor(alignment * remainder),
        alignment,
        base: start,
      });
      const live: Range[] = [];
      for (const { free, pick } of steps) {
        if (free) {
          if (live.length === 0) continue;
          const [gone] = live.splice(Math.floor(pick * live.length), 1);
          allocator.free(gone.handle);
        } else {
          // Squared: mostly small against the segment, now and then all of it.
          const size = 1 + Math.floor(pick * pick * (capacity - 1));
          const rounded = Math.ceil(size / alignment) * alignment;
          const { largestFree } = model(live, start, capacity);
          const got = allocator.allocate(size);
          assert.is(got !== undefined, rounded <= largestFree, `${rounded} of ${largestFree}`);
          if (!got) continue;
          assert.is(got.offset % alignment, 0);
          live.push({ offset: got.offset, size: rounded, handle: got.handle });
          assert.equal(allocator.locate(got.handle), { ...got, size: rounded });
        }
        assert.equal(allocator.figures(), model(live, start, capacity));
      }
      for (const { handle } of live) allocator.free(handle);
      assert.equal(allocator.figures(), model([], start, capacity));
      assert.is(allocator.allocate(capacity)?.offset, start);
    }),
    { numRuns: 300 },
  );
});

test('300,000 random steps over 16 segments: every page has one owner, and all comes back', () => {
  const PAGE = 4096;
  const PAGES = 1 << 14;
  const next = random(42);
  const set = new AllocatorSet({ maxSegments: 16 });
  const segments = Array.from({ length: 16 }, (_, i) =>
    set.addSegment({ length: PAGES * PAGE, alignment: PAGE, base: i * PAGES * PAGE }),
  );
  const owner = new Uint8Array(16 * PAGES);
  const live: (Range & { segment: number })[] = [];
  const own = (range: Range, from: number, to: number) => {
    const first = range.offset / PAGE;
    for (let page = first; page < first + range.size / PAGE; page++) {
      assert.is(owner[page], from);
      owner[page] = to;
    }
  };
  const check = () => {
    for (const id of segments) {
      const mine = live.filter((range) => range.segment === id);
      assert.equal(set.figures(id), model(mine, id * PAGES * PAGE, PAGES * PAGE));
      assert.is(set.freeBytes(id), set.figures(id).free);
    }
  };
  let refused = 0;
  for (let i = 0; i < 300_000; i++) {
    if (next() < 0.52) {
      const size = Math.ceil(2 ** (next() * 20));
      const id = Math.floor(next() * 16);
      const got = set.allocate(id, size);
      if (!got) {
        refused++;
        continue;
      }
      const range = { segment: id, offset: got.offset, size: Math.ceil(size / PAGE) * PAGE, handle: got.handle };
      assert.ok(range.offset >= id * PAGES * PAGE && range.offset + range.size <= (id + 1) * PAGES * PAGE);
      own(range, 0, 1);
      live.push(range);
    } else if (live.length > 0) {
      const at = Math.floor(next() * live.length);
      const range = live[at];
      live[at] = live[live.length - 1];
      live.pop();
      set.free(range.handle);
      own(range, 1, 0);
    }
    if (i % 50_000 === 0) check();
  }
  check();
  assert.ok(refused > 100, 'the run reaches full segments');
  set.freeMany(Float64Array.from(live, ({ handle }) => handle));
  live.length = 0;
  check();
});

test('equal sizes fill a segment to the last byte, also out of freed holes', () => {
  const size = 3_274_752; // one block of a published KV layout: no power of two, no class boundary
  const allocator = new OffsetAllocator({ length: size * 1000 });
  const handles: number[] = [];
  for (let i = 0; i < 1000; i++) handles.push(allocator.allocate(size)!.handle);
  assert.is(allocator.allocate(1), undefined);
  for (let i = 0; i < 1000; i += 2) allocator.free(handles[i]);
  assert.is(allocator.allocate(size + 1), undefined);
  for (let i = 0; i < 1000; i += 2) handles[i] = allocator.allocate(size)!.handle;
  assert.is(allocator.figures().free, 0);
  assert.is(allocator.figures().fragmentation, 0);
});

test('the one hole that fits is found behind many of its class that are too small', () => {
  // 1,024 to 1,055 bytes are one class; the hole of 1,040 is freed first, so it is the last in the list.
  const allocator = new OffsetAllocator({ length: 1041 + 100 * 1031 });
  const fits = allocator.allocate(1040)!;
  const small: number[] = [];
  for (let i = 0; i < 100; i++) {
    allocator.allocate(1);
    small.push(allocator.allocate(1030)!.handle);
  }
  allocator.allocate(1);
  assert.is(allocator.figures().free, 0);
  allocator.free(fits.handle);
  allocator.freeMany(Float64Array.from(small));
  assert.is(allocator.figures().freeRegions, 101);
  assert.is(allocator.allocate(1041), undefined);
  assert.is(allocator.allocate(1040)?.offset, fits.offset);
});

test('a place can be asked for: it is had exactly where every byte of it is free', () => {
  const place = fc.record({
    how: fc.constantFrom('at', 'at', 'at', 'any', 'free'),
    offset: fc.integer({ min: -70, max: 400 }),
    size: fc.integer({ min: 1, max: 90 }),
    pick: fc.double({ min: 0, max: 0.999, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.constantFrom(1, 4, 64), fc.array(place, { maxLength: 120 }), (alignment, places) => {
      const base = 1024;
      const capacity = 320;
      const set = new AllocatorSet({ maxSegments: 2 });
      // A neighbour, so that a node may come back in another segment.
      const other = set.addSegment({ length: 1000 });
      const id = set.addSegment({ length: capacity, base, alignment });
      const live: Range[] = [];
      for (const { how, offset, size, pick } of places) {
        const rounded = Math.ceil(size / alignment) * alignment;
        if (how === 'free') {
          const extra = set.allocate(other, size);
          if (live.length > 0) set.free(live.splice(Math.floor(pick * live.length), 1)[0].handle);
          if (extra && pick < 0.5) set.free(extra.handle);
        } else if (how === 'any') {
          const got = set.allocate(id, size);
          if (got) live.push({ offset: got.offset, size: rounded, handle: got.handle });
        } else {
          const from = base + (pick < 0.7 ? offset - (offset % alignment) : offset);
          const got = set.allocateAt(id, from, size);
          const free =
            from % alignment === 0 &&
            from >= base &&
            from + rounded <= base + capacity &&
            live.every((range) => range.offset >= from + rounded || range.offset + range.size <= from);
          assert.is(got !== undefined, free, `${from} + ${size}`);
          if (!got) continue;
          assert.equal(set.locate(got.handle), { segment: id, offset: from, size: rounded, handle: got.handle });
          live.push({ offset: from, size: rounded, handle: got.handle });
        }
        assert.equal(set.figures(id), model(live, base, capacity));
      }
      for (const { handle } of live) set.free(handle);
      assert.equal(set.figures(id), model([], base, capacity));
      assert.is(set.allocateAt(id, base, capacity)?.offset, base);
    }),
    { numRuns: 300 },
  );
});

test('a segment is filled by places in any order, and refuses each a second time', () => {
  const PAGE = 4096;
  const next = random(11);
  const order = Array.from({ length: 2000 }, (_, i) => i).sort(() => next() - 0.5);
  for (const places of [order, [...order].sort((a, b) => a - b), [...order].sort((a, b) => b - a)]) {
    const allocator = new OffsetAllocator({ length: places.length * PAGE, base: 2 ** 40, alignment: PAGE });
    for (const place of places) assert.ok(allocator.allocateAt(2 ** 40 + place * PAGE, PAGE));
    assert.is(allocator.figures().free, 0);
    for (const place of places) assert.is(allocator.allocateAt(2 ** 40 + place * PAGE, 1), undefined);
  }
});

test('without memory for nodes a place is not had, and nothing has changed', () => {
  const allocator = new OffsetAllocator({ length: 2 ** 40, maxMetadataBytes: 2 ** 18 });
  let at = 4096;
  while (allocator.allocateAt(at, 4096)) at += 8192;
  const before = allocator.figures();
  assert.is(allocator.allocateAt(at, 4096), undefined);
  assert.equal(allocator.figures(), before);
  assert.is(before.largestFree, 2 ** 40 - at + 4096);

  // With one node left, what needs two is refused and leaves that one for what needs it.
  const packed = new OffsetAllocator({ length: 2 ** 40, maxMetadataBytes: 2 ** 18 });
  const handles: number[] = [];
  for (let got = packed.allocate(4096); got; got = packed.allocate(4096)) handles.push(got.handle);
  packed.free(handles[10]);
  packed.free(handles[11]);
  for (let k = 0; k < 3; k++) assert.is(packed.allocateAt(10 * 4096 + 1024, 1024), undefined);
  assert.ok(packed.allocateAt(10 * 4096, 4096));
});

test('offsets up to 2^47 and sizes beyond 32 bits', () => {
  const base = 2 ** 46;
  const allocator = new OffsetAllocator({ length: 2 ** 46, base, alignment: 2 ** 21 });
  const first = allocator.allocate(2 ** 45 + 1)!;
  const second = allocator.allocate(2 ** 44)!;
  assert.equal([first.offset, second.offset], [base, base + 2 ** 45 + 2 ** 21]);
  assert.is(allocator.allocate(2 ** 47), undefined);
  const last = allocator.allocate(2 ** 44 - 2 ** 21)!;
  assert.is(last.offset + 2 ** 44 - 2 ** 21, 2 ** 47);
  assert.is(allocator.figures().free, 0);
  for (const { handle } of [second, first, last]) allocator.free(handle);
  assert.is(allocator.figures().largestFree, 2 ** 46);
  assert.is(new OffsetAllocator({ length: 2 ** 47 }).allocate(2 ** 47)?.offset, 0);
});

test('every size up to 4,096 fits a hole of exactly that size', () => {
  for (let size = 1; size <= 4096; size++) {
    const allocator = new OffsetAllocator({ length: size });
    assert.is(allocator.allocate(size)?.offset, 0, `${size}`);
    assert.is(allocator.allocate(1), undefined, `${size}`);
  }
});

test('a handle is good once: freed, reused and foreign ones are refused', () => {
  const allocator = new OffsetAllocator({ length: 1000 });
  const other = new OffsetAllocator({ length: 1000 });
  const a = allocator.allocate(10)!;
  const b = allocator.allocate(10)!;
  const foreign = other.allocate(10)!;
  rejects('handle', () => allocator.free(foreign.handle));
  allocator.free(a.handle);
  const error = rejects('handle', () => allocator.free(a.handle));
  assert.is(error.value, a.handle);
  const again = allocator.allocate(10)!;
  assert.is(again.offset, a.offset);
  rejects('handle', () => allocator.free(a.handle));
  assert.is(allocator.locate(a.handle), undefined);
  for (const value of [0, 1, 2 ** 27, b.handle + 1, b.handle - 1, Number.MAX_SAFE_INTEGER, b.offset]) {
    rejects('handle', () => allocator.free(value));
  }
  for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '1', null, undefined, 1n, a]) {
    rejects('handle', () => allocator.free(value as never));
    rejects('handle', () => allocator.locate(value as never));
  }
  assert.is(allocator.figures().allocations, 2);
  allocator.free(b.handle);
  allocator.free(again.handle);
  assert.is(allocator.figures().largestFree, 1000);
});

test('segments: numbered, independent, closed with all their handles', () => {
  const set = new AllocatorSet({ maxSegments: 3 });
  const [a, b, c] = [100, 200, 300].map((length) => set.addSegment({ length, base: 1000 }));
  assert.equal([a, b, c, set.segmentCount], [0, 1, 2, 3]);
  rejects('maxSegments', () => set.addSegment({ length: 1 }), 'ERR_OUT_OF_MEMORY');
  const kept = set.allocate(a, 60)!;
  const lost = set.allocate(b, 60)!;
  const more = set.allocate(b, 60)!;
  set.free(lost.handle);
  set.removeSegment(b);
  rejects('handle', () => set.free(more.handle));
  rejects('segment', () => set.allocate(b, 1));
  rejects('segment', () => set.figures(b));
  rejects('segment', () => set.removeSegment(b));
  assert.is(set.addSegment({ length: 50 }), b, 'the lowest number is taken again');
  assert.equal(set.figures(b), model([], 0, 50));
  assert.is(set.allocate(b, 51), undefined);
  rejects('handle', () => set.free(more.handle));
  set.free(kept.handle);
  assert.equal(set.figures(a), model([], 1000, 100));
});

test('allocateFirst takes the first segment of the list that fits', () => {
  const set = new AllocatorSet({ maxSegments: 5000 });
  for (let i = 0; i < 5000; i++) set.addSegment({ length: i === 4321 ? 64 : 32 });
  const all = Uint32Array.from({ length: 5000 }, (_, i) => i);
  const far = set.allocateFirst(all, 33)!;
  assert.equal([far.segment, far.offset], [4321, 0]);
  assert.equal(set.locate(far.handle), { ...far, size: 33 });
  assert.is(set.allocateFirst(all, 33), undefined);
  assert.is(set.allocateFirst([7, 3], 32)?.segment, 7);
  assert.is(set.allocateFirst([7, 3], 1)?.segment, 3);
  assert.is(set.allocateFirst([], 1), undefined);
});

test('batches: entry for entry what single calls give, over more than one window', () => {
  const next = random(7);
  const sizes = new Float64Array(7000).map(() => 1 + Math.floor(next() * 100));
  const capacity = 300_000;
  const one = new OffsetAllocator({ length: capacity });
  const many = new OffsetAllocator({ length: capacity });
  const singles = Array.from(sizes, (size) => one.allocate(size)?.offset ?? -1);
  const { count, offsets, handles } = many.allocateMany(sizes);
  assert.equal([...offsets], singles);
  assert.is(count, singles.filter((offset) => offset >= 0).length);
  assert.ok(count < 7000 && count > 5000);
  assert.ok(handles.every((handle, i) => (handle === -1) === (offsets[i] === -1)));
  assert.equal(many.figures(), one.figures());
  many.freeMany(handles);
  assert.equal(many.figures(), model([], 0, capacity));

  const set = new AllocatorSet();
  const [a, b] = [set.addSegment({ length: 100 }), set.addSegment({ length: 100, base: 1000 })];
  const into = { offsets: new Float64Array(9).fill(7), handles: new Float64Array(9).fill(7) };
  const mixed = set.allocateMany(Uint32Array.of(a, b, a, b), Uint32Array.of(60, 60, 60, 40), into);
  assert.equal([...mixed.offsets], [0, 1000, -1, 1060, 7, 7, 7, 7, 7]);
  assert.is(mixed.count, 3);
  assert.is(into.handles[4], 7);
});

test('freeMany names the first bad entry; those before it are free', () => {
  const allocator = new OffsetAllocator({ length: 10_000 });
  const { handles } = allocator.allocateMany(new Uint32Array(5000).fill(1));
  const batch = Float64Array.from([-1, ...handles.subarray(0, 3000), -1, handles[10], handles[4000]]);
  rejects('handles[3002]', () => allocator.freeMany(batch));
  assert.is(allocator.figures().allocations, 2000);
  rejects('handles[2]', () => allocator.freeMany(Float64Array.of(handles[4000], -1, Number.NaN)));
  assert.is(allocator.figures().allocations, 2000, 'a value that is no handle at all stops the batch before it starts');
});

test('when the tables are full an allocation does not fit; what is freed can be had again', () => {
  const allocator = new OffsetAllocator({ length: 2 ** 40, maxMetadataBytes: 2 ** 18 });
  const handles: number[] = [];
  for (let got = allocator.allocate(4096); got; got = allocator.allocate(4096)) handles.push(got.handle);
  assert.ok(handles.length > 3000 && handles.length < 2 ** 18 / 32, `${handles.length}`);
  assert.ok(allocator.metadataBytes <= 2 ** 18);
  const odd = new OffsetAllocator({ length: 2 ** 40, maxMetadataBytes: 2 ** 19 - 1 });
  while (odd.allocate(4096));
  assert.ok(odd.metadataBytes < 2 ** 19, 'the bound is rounded down to pages');
  for (const handle of handles) allocator.free(handle);
  assert.equal(allocator.figures(), model([], 0, 2 ** 40));
  assert.is(allocator.allocateMany(new Float64Array(handles.length + 9).fill(1)).count, handles.length);
  rejects('maxMetadataBytes', () => new AllocatorSet({ maxMetadataBytes: 2 ** 18 }), 'ERR_OUT_OF_MEMORY');
});

/** An array whose buffer went elsewhere, as by postMessage with a transfer list. */
function detached(): Float64Array {
  const array = new Float64Array(3);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

test('lists that change between their check and their use allocate nothing of zero bytes and break nothing', () => {
  const set = new AllocatorSet({ maxSegments: 2 });
  const id = set.addSegment({ length: 100 });
  const handles = new Float64Array(3);
  // A getter does here what another thread can do to an array over shared memory.
  const changing = (change: () => void) => ({
    handles,
    get offsets() {
      change();
      return new Float64Array(3);
    },
  });
  const sizes = Float64Array.of(1, 1, 1);
  const bad = Float64Array.of(0, -5, Number.NaN);
  assert.is(
    set.allocateMany(
      id,
      sizes,
      changing(() => sizes.set(bad)),
    ).count,
    0,
  );
  const segments = Uint32Array.of(id, id, id);
  const ones = Float64Array.of(1, 1, 1);
  const away = changing(() => segments.set([1, 40_000, 2 ** 32 - 1]));
  assert.is(set.allocateMany(segments, ones, away).count, 0);
  let reads = 0;
  const list = new Proxy([id], {
    get: (target, key) => (key === '0' && reads++ > 0 ? 40_000 : Reflect.get(target, key)),
  });
  assert.is(set.allocateFirst(list, 1), undefined);
  assert.equal(set.figures(id), model([], 0, 100));
});

test('no room for another instance is an error with a code', () => {
  const memory = WebAssembly.Memory;
  WebAssembly.Memory = class {
    constructor() {
      throw new RangeError('could not allocate memory');
    }
  } as never;
  try {
    rejects('an instance of the core', () => new OffsetAllocator({ length: 100 }), 'ERR_OUT_OF_MEMORY');
  } finally {
    WebAssembly.Memory = memory;
  }
});

test('wrong arguments are named, and nothing has changed', () => {
  const set = new AllocatorSet({ maxSegments: 2 });
  const id = set.addSegment({ length: 100 });
  const kept = set.allocate(id, 10)!;
  const before = set.figures(id);
  const numbers = [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '8', null, 8n, {}];
  for (const value of numbers) {
    rejects('size', () => set.allocate(id, value as never));
    rejects('size', () => set.allocateFirst([id], value as never));
    rejects('length', () => set.addSegment({ length: value as never }));
    rejects('alignment', () => set.addSegment({ length: 64, alignment: value as never }));
    rejects('size', () => set.allocateAt(id, 0, value as never));
    if (value !== 0) rejects('offset', () => set.allocateAt(id, value as never, 1));
    if (value !== 0) rejects('base', () => set.addSegment({ length: 64, base: value as never }));
    rejects('maxSegments', () => new AllocatorSet({ maxSegments: value as never }));
    rejects('maxMetadataBytes', () => new AllocatorSet({ maxMetadataBytes: value as never }));
  }
  for (const value of [-1, 1, 2, 0.5, Number.NaN, '0', null, undefined, 2 ** 40]) {
    rejects('segment', () => set.allocate(value as never, 1));
    rejects('segment', () => set.allocateAt(value as never, 0, 1));
    rejects('segment', () => set.removeSegment(value as never));
    rejects('segment', () => set.figures(value as never));
    rejects('segment', () => set.freeBytes(value as never));
    rejects('segments[1]', () => set.allocateFirst([id, value as never], 1));
    rejects('segments', () => set.allocateMany(value as never, Float64Array.of(1)));
  }
  for (const value of ['0', 0, null, undefined, new Float64Array(1)]) {
    rejects('segments', () => set.allocateFirst(value as never, 1));
  }
  rejects('alignment', () => set.addSegment({ length: 64, alignment: 3 }));
  rejects('length', () => set.addSegment({ length: 63, alignment: 64 }));
  rejects('length', () => set.addSegment({ length: 2 ** 47 + 1 }));
  rejects('base', () => set.addSegment({ length: 64, alignment: 64, base: 32 }));
  rejects('base', () => set.addSegment({ length: 2 ** 46, base: 2 ** 46 + 1 }));
  rejects('options', () => set.addSegment(5 as never));
  rejects('options', () => new AllocatorSet([] as never));
  rejects('length', () => new OffsetAllocator({} as never));
  const strange = [{ length: -5 }, { length: 2 ** 53 }, new Proxy(new Float64Array(1), {}), detached()];
  for (const sizes of [[1], 5, null, undefined, new BigUint64Array(1), ...strange]) {
    rejects('sizes', () => set.allocateMany(id, sizes as never));
  }
  for (const value of [0, -1, 1.5, Number.NaN, 2 ** 48]) {
    rejects('sizes[2]', () => set.allocateMany(id, Float64Array.of(1, 1, value)));
  }
  rejects('segments', () => set.allocateMany(Uint32Array.of(id), Float64Array.of(1, 1)));
  rejects('segments[1]', () => set.allocateMany(Uint32Array.of(id, 1), Float64Array.of(1, 1)));
  const short = { offsets: new Float64Array(1), handles: new Float64Array(2) };
  rejects('into.offsets', () => set.allocateMany(id, Float64Array.of(1, 1), short));
  rejects('into.handles', () => set.allocateMany(id, Float64Array.of(1), { ...short, handles: [0] as never }));
  for (const handles of [[kept.handle], ...strange]) rejects('handles', () => set.freeMany(handles as never));
  assert.equal(set.figures(id), before);
  set.free(kept.handle);
  assert.equal(set.figures(id), model([], 0, 100));
});

test.run();
