// Blocks that the table does not have yet. A walk counts its way through a dense run, so a new block of one is entered
// only when a block is asked for by its key alone (`has`, a removal, a parent); then all that wait are entered, which
// is the work that each insertion would have had, and no search has to know that some waited.
//
// What waits is noted as ranges of ids. The record of a block says whether it still does: a range may name blocks that
// were freed meanwhile, or entered because a run was cut before them. So it is the ids noted that are limited, not the
// blocks that wait: an insertion above the limit first enters as many of the oldest ids as it has new blocks.
import { HEADER } from '../memory';
import { block, entered, KEY, nodeOf, previous, sameKey } from './blocks';
import {
  ASKED,
  add,
  get,
  NOTED,
  PENDING,
  QUEUE,
  RANGE_COUNT,
  RANGE_HEAD,
  RANGES,
  set,
  TWINS,
  takeForTable,
  WARMED,
} from './header';
import { find, findNext, hash, put, warm } from './table';

// New keys whose table slots are brought into the cache together.
const BATCH: usize = 32;
const QUEUED: usize = HEADER + QUEUE;
const QUEUED_SIZE: usize = 12;
const QUEUE_END: usize = QUEUED + BATCH * QUEUED_SIZE;
const MOST_RANGES: u32 = 1024;
const PIECE: u32 = 512;
// To enter so many takes 0.2 s, which who first asks by key has to wait,
const MOST_NOTED: u32 = 1 << 21;
// and so many some 10 ms: who asked once will ask again.
const MOST_ONCE_ASKED: u32 = 1 << 16;

export function initPending(): bool {
  const ranges = takeForTable(MOST_RANGES << 3);
  set(RANGES, <u32>ranges);
  return ranges != 0;
}

// Address of a range {first id u32, ids u32}, the oldest first.
// @ts-ignore: decorator
@inline
function rangeAt(k: u32): usize {
  return get(RANGES) + (((get(RANGE_HEAD) + k) & (MOST_RANGES - 1)) << 3);
}

/** Notes `count` blocks with consecutive ids. False where they should rather be entered now. */
export function wait(first: u32, count: u32): bool {
  const most = get(ASKED) ? MOST_ONCE_ASKED : MOST_NOTED;
  while (get(NOTED) + count > most) if (!get(NOTED) || !enterOldest(get(NOTED) + count - most)) return false;
  if (get(RANGE_COUNT)) {
    const last = rangeAt(get(RANGE_COUNT) - 1);
    if (load<u32>(last) + load<u32>(last, 4) == first) {
      store<u32>(last, load<u32>(last, 4) + count, 4);
      add(NOTED, count);
      return true;
    }
    // No more work than for as many as come: a long oldest range makes room by and by.
    if (get(RANGE_COUNT) == MOST_RANGES) {
      if (!enterOldest(max(count, PIECE)) || get(RANGE_COUNT) == MOST_RANGES) return false;
    }
  }
  const range = rangeAt(get(RANGE_COUNT));
  store<u32>(range, first);
  store<u32>(range, count, 4);
  add(RANGE_COUNT, 1);
  add(NOTED, count);
  return true;
}

// Enters what waits of the oldest range, up to `count` ids of it. False without memory: then they stay noted.
function enterOldest(count: u32): bool {
  const range = rangeAt(0);
  const first = load<u32>(range);
  const size = load<u32>(range, 4);
  const part = min(count, size);
  for (let done: u32 = 0; done < part; done += PIECE) {
    if (!enterPiece(first + done, min(part - done, PIECE))) return false;
  }
  store<u32>(range, first + part);
  store<u32>(range, size - part, 4);
  if (part == size) {
    add(RANGE_COUNT, -1);
    add(RANGE_HEAD, 1);
  }
  add(NOTED, -(<i32>part));
  return true;
}

/** Whether a range has this id. */
export function isNoted(id: u32): bool {
  for (let k: u32 = 0; k < get(RANGE_COUNT); k++) {
    const range = rangeAt(k);
    if (id - load<u32>(range) < load<u32>(range, 4)) return true;
  }
  return false;
}

/** Enters those of `count` blocks, from `last` upwards, that the table does not have. False without memory. */
export function enterRun(last: u32, count: u32): bool {
  let at: usize = QUEUED;
  let seen: u32 = 0;
  for (; count > 0; count--) {
    const record = block(last);
    if (!entered(record)) {
      seen |= queue(at, last, record);
      at += QUEUED_SIZE;
    }
    if (at == QUEUE_END) {
      if (!enterQueued(at, seen)) return false;
      at = QUEUED;
    }
    last = previous(record);
  }
  return at == QUEUED || enterQueued(at, seen);
}

/** Enters all blocks that wait. Those for which there is no memory go on waiting. */
export function enterAll(): void {
  const count = get(RANGE_COUNT);
  let kept: u32 = 0;
  set(NOTED, 0);
  for (let k: u32 = 0; k < count; k++) {
    const range = rangeAt(k);
    let id = load<u32>(range);
    const end = id + load<u32>(range, 4);
    let from = end; // what goes on waiting lies from here
    let to = end; // to here
    while (id < end) {
      const next = min(id + PIECE, end);
      if (!enterPiece(id, next - id)) {
        from = min(from, id);
        to = next;
      }
      id = next;
    }
    if (from == end) continue;
    const left = rangeAt(kept++);
    store<u32>(left, from);
    store<u32>(left, to - from, 4);
    add(NOTED, to - from);
  }
  set(RANGE_COUNT, kept);
}

// Called often, so soon compiled well, which one loop over all that wait would not be. False without memory for some.
function enterPiece(id: u32, count: u32): bool {
  let at: usize = QUEUED;
  let seen: u32 = 0;
  let all = true;
  for (const end = id + count; id < end; id++) {
    const record = block(id);
    if (!waits(record)) continue;
    seen |= queue(at, id, record);
    at += QUEUED_SIZE;
    if (at < QUEUE_END) continue;
    all = enterQueued(at, seen) && all;
    at = QUEUED;
  }
  return enterQueued(at, seen) && all;
}

// @ts-ignore: decorator
@inline
function waits(record: usize): bool {
  return nodeOf(record) != 0 && !entered(record);
}

// Notes a block to be entered, and what `put` will want.
// @ts-ignore: decorator
@inline
function queue(at: usize, id: u32, record: usize): u32 {
  const h = hash(record + KEY);
  store<u32>(at, id);
  store<u32>(at, <u32>record, 4);
  store<u32>(at, h, 8);
  return warm(h);
}

function enterQueued(end: usize, seen: u32): bool {
  set(WARMED, seen);
  let failed: u32 = 0;
  for (let at: usize = QUEUED; at < end; at += QUEUED_SIZE) {
    if (!put(load<u32>(at), load<u32>(at, 4), load<u32>(at, 8))) failed++;
  }
  add(PENDING, <i32>failed - <i32>((end - QUEUED) / QUEUED_SIZE));
  return failed == 0;
}

/** The first of the blocks with this key, 0 when there is none. All that wait have been entered then. */
export function firstPlace(key: usize): u32 {
  set(ASKED, 1);
  if (get(PENDING)) enterAll();
  return find(key) || (get(PENDING) ? findPending(key, 0) : 0);
}

/** The next one after `id`, or 0: a key may stand under several parents. */
export function nextPlace(key: usize, id: u32): u32 {
  if (!get(TWINS) && !get(PENDING)) return 0;
  const next = entered(block(id)) ? findNext(key, id) : 0;
  if (next || !get(PENDING)) return next;
  return findPending(key, entered(block(id)) ? 0 : id);
}

// Looks through what had to go on waiting: the lowest id after `after`.
function findPending(key: usize, after: u32): u32 {
  const count = get(RANGE_COUNT);
  let found: u32 = 0;
  for (let k: u32 = 0; k < count; k++) {
    const range = rangeAt(k);
    const end = load<u32>(range) + load<u32>(range, 4);
    for (let id = max(load<u32>(range), after + 1); id < end && (!found || id < found); id++) {
      if (waits(block(id)) && sameKey(block(id) + KEY, key)) found = id;
    }
  }
  return found;
}
