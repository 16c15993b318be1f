/**
 * The object table of a metadata service: keys as the stock vLLM connector makes them (135 bytes), one replica and a
 * checksum each. Rates are of calls from JavaScript with 512 keys each; memory is what the process grew by. The peer is a
 * Map from a key's text to an object with the same fields, in the same process, up to a million objects.
 *
 *   --objects=N[,N]   how many objects (1,000,000 and 10,000,000)
 *   --shards=N        memories to spread them over (1)
 *   --reps=N          runs of each lookup, in turn with the peer's; the median counts (9)
 */
import { Keys, ObjectTable } from 'mooncake-ts';
import { median, report } from './support/report.js';

const flag = (name: string) => process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
const COUNTS = (flag('objects') ?? '1e6,1e7').split(',').map(Number);
const SHARDS = Number(flag('shards') ?? 1);
const REPS = Number(flag('reps') ?? 9);
const BATCH = 512;
const QUERIES = 200;
const PEER_MOST = 1e6;
const TEMPLATE = 'meta-llama/Llama-3.1-8B-Instruct@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@';
const KEY_BYTES = TEMPLATE.length + 64;
const HEX = Uint32Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));

const bytes = new TextEncoder().encode(`${TEMPLATE}${'0'.repeat(64)}`.repeat(BATCH));
const offsets = Uint32Array.from({ length: BATCH + 1 }, (_, i) => i * KEY_BYTES);

/** The keys of these numbers; `into` is written anew by each call. */
function stockKeys(numbers: ArrayLike<number>, into = bytes.slice()): Keys {
  for (let k = 0; k < BATCH; k++) {
    let at = k * KEY_BYTES + TEMPLATE.length;
    for (let word = 0; word < 8; word++) {
      // MurmurHash3's fmix32: unlike numbers, unlike words.
      let mixed = numbers[k] * 8 + word;
      mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
      mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
      mixed ^= mixed >>> 16;
      for (let digit = 28; digit >= 0; digit -= 4) into[at++] = HEX[(mixed >>> digit) & 15];
    }
  }
  return new Keys(into, offsets);
}

const from = (first: number) => Uint32Array.from({ length: BATCH }, (_, i) => first + i);

function milliseconds(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

const megabytesResident = () => {
  (globalThis as { gc?: () => void }).gc?.();
  return process.memoryUsage().rss / 1e6;
};

/** Queries that hit: keys at random, which miss every cache, and runs of keys that were put one after another. */
function queries(count: number): [name: string, keys: Keys[]][] {
  const random = () => Math.floor(Math.random() * (count - BATCH));
  return [
    ['runs', Array.from({ length: QUERIES }, () => stockKeys(from(random())))],
    ['random', Array.from({ length: QUERIES }, () => stockKeys(Float64Array.from({ length: BATCH }, random)))],
  ];
}

interface PeerObject {
  complete: boolean;
  size: number;
  checksum: bigint;
  leaseUntil: number;
  lookupUntil: number;
  pinUntil: number;
  startedAt: number;
  handle: number;
  owner: number;
}

/** What one writes without a table: a Map keeps the order of use if an object that is read is entered anew. */
class MapTable {
  readonly #objects = new Map<string, PeerObject>();

  insert(keys: Keys, now: number): void {
    for (let i = 0; i < keys.length; i++) {
      const key = keys.text(i);
      if (this.#objects.has(key)) continue;
      const times = { leaseUntil: 0, lookupUntil: 0, pinUntil: 0, startedAt: now };
      this.#objects.set(key, { complete: true, size: 2 ** 20, checksum: BigInt(i), handle: i, owner: 1, ...times });
    }
  }

  lookup(keys: Keys, mode: 'lookup' | 'read', until: number): number {
    let found = 0;
    for (let i = 0; i < keys.length; i++) {
      const key = keys.text(i);
      const object = this.#objects.get(key);
      if (!object?.complete) continue;
      found++;
      if (mode === 'lookup') {
        object.lookupUntil = Math.max(object.lookupUntil, until);
      } else {
        object.leaseUntil = Math.max(object.leaseUntil, until);
        this.#objects.delete(key);
        this.#objects.set(key, object);
      }
    }
    return found;
  }
}

/** Fills a table; milliseconds in all, of its longest call, and of the call at the 99.9th percentile. */
function fill(count: number, insert: (keys: Keys, first: number) => void) {
  const times: number[] = [];
  const buffer = bytes.slice();
  for (let first = 0; first < count; first += BATCH) {
    const keys = stockKeys(from(first), buffer);
    times.push(milliseconds(() => insert(keys, first)));
  }
  times.sort((a, b) => a - b);
  const total = times.reduce((sum, time) => sum + time, 0);
  return { total, longest: times[times.length - 1], late: times[Math.floor(times.length * 0.999)] };
}

function run(count: number): void {
  const total = Math.ceil(count / BATCH) * BATCH;
  const label = `objects ${count / 1e6}M${SHARDS > 1 ? `, ${SHARDS} shards` : ''}:`;
  const table = new ObjectTable({ shards: SHARDS });
  const out = new Float64Array(BATCH);
  const before = megabytesResident();
  const filled = fill(count, (keys) => {
    if (table.insertMany(0, keys, out) !== BATCH) throw new Error('an object was there already');
  });
  let cursor = 0;
  do {
    const slice = table.scan(cursor);
    for (const id of slice.ids) {
      table.setState(id, 'complete');
      table.setSize(id, 2 ** 20);
      table.setChecksum(id, 0x0123456789abcdefn);
      table.setHandle(id, id);
      table.link(id, 0);
    }
    cursor = slice.cursor;
  } while (cursor !== 0);
  const grown = megabytesResident() - before;

  const peer = count <= PEER_MOST ? new MapTable() : undefined;
  const beforePeer = megabytesResident();
  const peerFilled = peer && fill(count, (keys, first) => peer.insert(keys, first));
  const peerGrown = peer && megabytesResident() - beforePeer;
  const against = <T>(value: T | undefined) => (peer ? { baseline: value as number, peer: 'Map' } : {});

  report(
    { name: `${label} memory`, value: (grown * 1e6) / total, unit: 'B/object', ...against((peerGrown! * 1e6) / total) },
    'lower',
  );
  report(
    {
      name: `${label} insert`,
      value: (total / filled.total) * 1e3,
      unit: 'keys/s',
      ...against((total / (peerFilled?.total ?? 1)) * 1e3),
    },
    'higher',
  );
  report(
    { name: `${label} insert, 99.9 % of calls`, value: filled.late, unit: 'ms', ...against(peerFilled?.late) },
    'lower',
  );
  report(
    { name: `${label} insert, longest call`, value: filled.longest, unit: 'ms', ...against(peerFilled?.longest) },
    'lower',
  );

  for (const [name, batches] of queries(count)) {
    for (const mode of ['lookup', 'read'] as const) {
      const rates: number[] = [];
      const peerRates: number[] = [];
      const rate = (lookup: (keys: Keys) => number) => {
        let found = 0;
        const took = milliseconds(() => {
          for (const keys of batches) found += lookup(keys);
        });
        if (found !== QUERIES * BATCH) throw new Error(`${found} objects found`);
        return (found / took) * 1e3;
      };
      for (let rep = 0; rep < REPS; rep++) {
        rates.push(rate((keys) => table.lookupMany(0, keys, mode, Date.now() + 10_000, out)));
        if (peer) peerRates.push(rate((keys) => peer.lookup(keys, mode, Date.now() + 10_000)));
      }
      report(
        {
          name: `${label} ${mode}, ${name}`,
          value: median(rates),
          unit: 'keys/s',
          ...against(peer && median(peerRates)),
        },
        'higher',
      );
    }
  }

  const victims = Math.min(total, 500_000);
  const evicted = milliseconds(() => {
    for (let id = table.oldest(0), k = 0; k < victims; k++) {
      const next = table.newer(id);
      table.remove(id);
      id = next;
    }
  });
  report({ name: `${label} evict the oldest`, value: (victims / evicted) * 1e3, unit: 'objects/s' }, 'higher');
}

for (const count of COUNTS) run(count);
