// Which shard a key belongs to. Any shard can say, since all have one seed: it sorts a batch by shard, so that each
// shard gets its keys in one piece.
import { sameBytes } from './cells';
import { MOVES, OFFSETS, ORDER, PROBES, ROUTED, ROUTED_OFFSETS, ROUTED_STARTS, TEXT } from './header';
import {
  BEFORE,
  BEHIND,
  BEHIND_LENGTH,
  cut,
  hashKey,
  hashTemplate,
  KEY,
  PROBE,
  TEMPLATE_HASH,
} from './probe';

// @ts-ignore: decorator
@inline
function item(array: usize, k: u32): usize {
  return array + (<usize>k << 2);
}

// @ts-ignore: decorator
@inline
function add(at: usize, more: u32): void {
  store<u32>(at, load<u32>(at) + more);
}

/**
 * Sorts `count` keys of the window by shard: at ROUTED their bytes, at ROUTED_OFFSETS where each of them begins and the
 * last one ends, at ORDER which key it is, at ROUTED_STARTS the place of each shard's first key and the end.
 */
export function route(count: u32, tenant: u32, shards: u32): void {
  memory.fill(ROUTED_STARTS, 0, item(0, shards + 1));
  let probe = PROBES;
  let last = PROBES + PROBE;
  store<u32>(last, 0, KEY);
  for (let k: u32 = 0; k < count; k++) {
    const from: usize = load<u32>(item(OFFSETS, k));
    cut(TEXT + from, <usize>load<u32>(item(OFFSETS, k + 1)) - from, probe);
    const template = sameTemplate(probe, last) ? load<u64>(last, TEMPLATE_HASH) : hashTemplate(probe, tenant);
    store<u64>(probe, template, TEMPLATE_HASH);
    const shard = <u32>(((hashKey(probe, template) >>> 32) * shards) >>> 32);
    store<u32>(item(MOVES, k), shard);
    add(item(ROUTED_STARTS, shard), 1);
    const swap = probe;
    probe = last;
    last = swap;
  }
  // From how many to where they end; placing from behind makes that where they begin.
  for (let shard: u32 = 1; shard <= shards; shard++) {
    add(item(ROUTED_STARTS, shard), load<u32>(item(ROUTED_STARTS, shard - 1)));
  }
  for (let k = count; k > 0; k--) {
    const start = item(ROUTED_STARTS, load<u32>(item(MOVES, k - 1)));
    const place = load<u32>(start) - 1;
    store<u32>(start, place);
    store<u32>(item(ORDER, place), k - 1);
  }
  let at: u32 = 0;
  for (let place: u32 = 0; place < count; place++) {
    const offset = item(OFFSETS, load<u32>(item(ORDER, place)));
    const size = load<u32>(offset, 4) - load<u32>(offset);
    store<u32>(item(ROUTED_OFFSETS, place), at);
    memory.copy(ROUTED + at, TEXT + load<u32>(offset), size);
    at += size;
  }
  store<u32>(item(ROUTED_OFFSETS, count), at);
}

function sameTemplate(a: usize, b: usize): bool {
  const before: usize = load<u32>(a, BEFORE);
  const behind: usize = load<u32>(a, BEHIND_LENGTH);
  if (!load<u32>(b, KEY)) return false;
  if (<usize>load<u32>(b, BEFORE) != before || <usize>load<u32>(b, BEHIND_LENGTH) != behind) return false;
  return (
    sameBytes(load<u32>(a, KEY), load<u32>(b, KEY), before) &&
    sameBytes(load<u32>(a, BEHIND), load<u32>(b, BEHIND), behind)
  );
}
