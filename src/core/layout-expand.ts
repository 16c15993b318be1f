/**
 * Runs transfer programs over pairs of blocks in the core (assembly/layout/expand.ts): lays both out in the scratch
 * instance's memory and carries the records out of a small buffer into one array of the right size.
 */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from './descriptors.js';
import type { Pairs } from './layout-pairs.js';
import {
  ENTRY_DESTINATION,
  ENTRY_DESTINATION_SEGMENT,
  ENTRY_FIELDS,
  ENTRY_INNER_COUNT,
  ENTRY_OUTER_COUNT,
  ENTRY_PAIR_COUNT,
  ENTRY_PAIRS,
} from './layout-program.js';
import { scratch } from './wasm.js';

interface LayoutExports {
  layoutCount(cursor: number, open: number): number;
  layoutWrite(cursor: number, out: number, capacity: number, keep: number): number;
}

/** A compiled program and the pairs of blocks to run it on. */
export interface Part {
  program: Float64Array;
  pairs: Pairs;
}

/** Records written per call of the core: 256 KiB, so that they are copied out of cache. */
const CHUNK = 8192;
const CURSOR_BYTES = 32;
/** Position in the cursor of the entry at which the loops stand. */
const CURSOR_ENTRY = 2;

/** One entry of a program and the part whose pairs it runs over. */
interface Row {
  fields: Float64Array;
  part: number;
}

/** The entries of all parts; pieces of the same tensor follow each other, so that a run may go on from one to the next. */
function rowsOf(parts: readonly Part[]): Row[] {
  const rows: Row[] = [];
  for (const [part, { program }] of parts.entries()) {
    for (let at = 0; at < program.length; at += ENTRY_FIELDS) {
      rows.push({ fields: program.subarray(at, at + ENTRY_FIELDS), part });
    }
  }
  return rows.sort(
    ({ fields: a }, { fields: b }) =>
      a[ENTRY_DESTINATION_SEGMENT] - b[ENTRY_DESTINATION_SEGMENT] || a[ENTRY_DESTINATION] - b[ENTRY_DESTINATION],
  );
}

/** All descriptors of the parts, through a buffer of CHUNK records. */
export function expand(parts: readonly Part[]): Descriptors {
  const core = scratch<LayoutExports>();
  const total = parts.reduce((sum, { program }) => sum + program.length, 0);
  const cursor = core.heap;
  const entries = cursor + CURSOR_BYTES;
  let end = entries + total * 8;
  const places = parts.map(({ pairs }) => {
    const place = end;
    end += pairs.words.byteLength;
    return place;
  });
  const out = Math.ceil(end / 64) * 64;
  core.reserve(out + CHUNK * DESCRIPTOR_BYTES, 'planTransfer');

  const { f64, u32 } = core;
  const table = f64.subarray(entries / 8, entries / 8 + total);
  if (parts.length === 1) {
    table.set(parts[0].program);
    setPairs(table, places[0], parts[0].pairs.count);
  } else {
    for (const [index, { fields, part }] of rowsOf(parts).entries()) {
      table.set(fields, index * ENTRY_FIELDS);
      setPairs(table.subarray(index * ENTRY_FIELDS, (index + 1) * ENTRY_FIELDS), places[part], parts[part].pairs.count);
    }
  }
  for (const [index, { pairs }] of parts.entries()) u32.set(pairs.words, places[index] / 4);
  u32.set([entries, total / ENTRY_FIELDS, 0, 0, 0, 0, 0, 0], cursor / 4);

  const done = () => core.u32[cursor / 4 + CURSOR_ENTRY] === total / ENTRY_FIELDS;
  let ready = core.exports.layoutWrite(cursor, out, CHUNK, 0) >>> 0;
  let rest = 0;
  if (!done()) {
    // Counted from here on, the run that is still open included; then the cursor is put back.
    const resume = core.u32.slice(cursor / 4, cursor / 4 + CURSOR_BYTES / 4);
    rest = core.exports.layoutCount(cursor, out + (CHUNK - 1) * DESCRIPTOR_BYTES) - 1;
    core.u32.set(resume, cursor / 4);
  }
  const bytes = allocateDescriptors(ready + rest);
  for (let written = DESCRIPTOR_BYTES; ; ready = core.exports.layoutWrite(cursor, out, CHUNK, 1) >>> 0) {
    const last = done();
    // Until the end the last record may still grow: it stays behind, and is the first of the next round.
    const size = (last ? ready : ready - 1) * DESCRIPTOR_BYTES;
    bytes.set(core.u8.subarray(out, out + size), written);
    written += size;
    if (last) return new Descriptors(bytes);
  }
}

function setPairs(table: Float64Array, place: number, count: number): void {
  for (let at = 0; at < table.length; at += ENTRY_FIELDS) {
    table[at + ENTRY_PAIRS] = place;
    table[at + ENTRY_PAIR_COUNT] = count;
  }
}

/** The descriptors of the parts in pieces of at most `maxRecords`, but at least one pair of blocks. */
export function* chunked(parts: readonly Part[], maxRecords: number): IterableIterator<Descriptors> {
  for (const { program, pairs } of parts) {
    let perPair = 0;
    for (let row = 0; row < program.length; row += ENTRY_FIELDS) {
      perPair += program[row + ENTRY_INNER_COUNT] * program[row + ENTRY_OUTER_COUNT];
    }
    const step = Math.max(1, Math.floor(maxRecords / perPair));
    const words = pairs.words.length / pairs.count;
    for (let first = 0; first < pairs.count; first += step) {
      const slice = pairs.words.subarray(first * words, (first + step) * words);
      yield expand([{ program, pairs: { ...pairs, count: slice.length / words, words: slice } }]);
    }
  }
}
