/**
 * A snapshot of a prefix index: everything but the hash table, which is built again, so that no two indexes share its
 * random function. All numbers little-endian.
 *
 *   0  "MCPREFIX"      20  u32 bytes of names            48  names: JSON, an array of strings, null where an id is free
 *   8  u16 version     24  f64 bytes of the body             body: a record for each node (assembly/prefix/snapshot.ts)
 *  10  u16 key width   32  u64 0
 *  12  u32 blocks      40  u64 CRC-64 of all other bytes
 *  16  u32 nodes
 */
import { crc64 } from './checksum.js';
import { errors } from './errors.js';
import type { KeyWidth } from './prefix-keys.js';
import type { Core } from './wasm.js';

/** What this module calls of the core. */
export interface SnapshotExports {
  prefixSaveStart(): number;
  prefixSaveNext(out: number, room: number, places: number): number;
  prefixRestore(from: number, size: number, live: number): number;
  prefixLoaded(nodes: number, blocks: number): number;
  prefixNodeIds(): number;
}

const MAGIC = 'MCPREFIX';
const VERSION = 1;
const HEADER = 48;
const CHECKSUM = 40;
const NO_MEMORY = -1;
const MALFORMED = -5;

// The longest record: 16,383 keys of 32 bytes and 65,535 entries; a window holds at least one.
const WINDOW = 1 << 20;
// What prefixRestore wants beside the window: a byte for each instance, a u32 for each holder.
const LIVE = 1024;
const MARKS = 4 * 65536;

/** A place of the writer's scratch memory. */
type Reserve = (size: number) => number;

export interface SnapshotContents {
  keyWidth: KeyWidth;
  blocks: number;
  nodes: number;
  /** Names by id; undefined where an id is free. */
  names: (string | undefined)[];
  body: Uint8Array;
}

export function writeSnapshot(
  core: Core<SnapshotExports>,
  reserve: Reserve,
  { keyWidth, blocks, nodes, names }: Omit<SnapshotContents, 'body'>,
): Uint8Array {
  const { exports } = core;
  const places = 4 * exports.prefixNodeIds();
  const area = reserve(places + WINDOW);
  const window = area + places;
  const text = new TextEncoder().encode(JSON.stringify(Array.from(names, (name) => name ?? null)));
  const size = exports.prefixSaveStart();
  const bytes = new Uint8Array(HEADER + text.length + size);
  bytes.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(bytes.buffer);
  view.setUint16(8, VERSION, true);
  view.setUint16(10, keyWidth, true);
  view.setUint32(12, blocks, true);
  view.setUint32(16, nodes, true);
  view.setUint32(20, text.length, true);
  view.setFloat64(24, size, true);
  bytes.set(text, HEADER);
  let at = HEADER + text.length;
  for (let count = -1; count !== 0; at += count) {
    count = exports.prefixSaveNext(window, WINDOW, area);
    bytes.set(core.u8.subarray(window, window + count), at);
  }
  view.setBigUint64(CHECKSUM, checksum(bytes), true);
  return bytes;
}

function checksum(bytes: Uint8Array): bigint {
  return crc64(bytes.subarray(CHECKSUM + 8), crc64(bytes.subarray(0, CHECKSUM)));
}

/** Checks all that can be checked before anything is built. */
export function readSnapshot(bytes: Uint8Array): SnapshotContents {
  if (bytes.length < HEADER) throw errors.snapshot(`${bytes.length} bytes are fewer than its header has`);
  const magic = String.fromCharCode(...bytes.subarray(0, MAGIC.length));
  if (magic !== MAGIC) throw errors.snapshot('it does not start as a prefix index does', 'snapshot', magic);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint16(8, true);
  if (version !== VERSION) {
    throw errors.snapshot(`version ${version} is not the one known here, ${VERSION}`, 'version', version);
  }
  const keyWidth = view.getUint16(10, true);
  if (keyWidth !== 8 && keyWidth !== 16 && keyWidth !== 32) {
    throw errors.snapshot(`keys of ${keyWidth} bytes`, 'keyWidth', keyWidth);
  }
  const textLength = view.getUint32(20, true);
  const size = HEADER + textLength + view.getFloat64(24, true);
  if (size !== bytes.length) {
    throw errors.snapshot(`${bytes.length} bytes where its header says ${size}`, 'snapshot', bytes.length);
  }
  if (view.getBigUint64(CHECKSUM, true) !== checksum(bytes)) throw errors.snapshot('its checksum does not agree');
  return {
    keyWidth,
    blocks: view.getUint32(12, true),
    nodes: view.getUint32(16, true),
    names: readNames(bytes.subarray(HEADER, HEADER + textLength)),
    body: bytes.subarray(HEADER + textLength),
  };
}

function readNames(text: Uint8Array): (string | undefined)[] {
  let names: unknown;
  try {
    names = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
  } catch (cause) {
    throw errors.snapshot('its instance names are not JSON', 'names', cause);
  }
  if (!Array.isArray(names) || !names.every((name) => name === null || typeof name === 'string')) {
    throw errors.snapshot('its instance names are not a list of strings', 'names', names);
  }
  const given = names.filter((name) => name !== null);
  if (names.length > LIVE || new Set(given).size !== given.length) {
    throw errors.snapshot('its instance names are too many or repeated', 'names', names.length);
  }
  return names.map((name: string | null) => name ?? undefined);
}

/** Builds a snapshot's nodes in an empty index. On an error that index is good for nothing. */
export function restore(core: Core<SnapshotExports>, reserve: Reserve, contents: SnapshotContents): void {
  const { names, body, nodes, blocks } = contents;
  const { exports } = core;
  const live = reserve(LIVE + MARKS + Math.min(WINDOW, body.length));
  const window = live + LIVE + MARKS;
  core.u8.fill(0, live, window);
  names.forEach((name, id) => {
    if (name !== undefined) core.u8[live + id] = 1;
  });
  for (let at = 0; at < body.length; ) {
    const part = body.subarray(at, at + WINDOW);
    core.u8.set(part, window);
    const used = exports.prefixRestore(window, part.length, live);
    if (used === NO_MEMORY) throw errors.outOfMemory('the prefix index', core.byteLength);
    if (used === MALFORMED || used === 0) throw errors.snapshot('its records contradict each other', 'snapshot', at);
    at += used;
  }
  if (!exports.prefixLoaded(nodes, blocks)) throw errors.snapshot('its totals are not those of its records');
}
