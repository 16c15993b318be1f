/** The works that prefix indexers are compared on: the requests as block hashes, and what every index must decide. */

export interface Decisions {
  /** Sum over requests of (instance + 1) * (request number from 1). */
  checksum: number;
  /** Sum of the best match of each request, in blocks. */
  matched: number;
}

export interface Work {
  name: string;
  instances: number;
  requests: BigUint64Array[];
  /** Distinct hashes. */
  unique: number;
  /** The works of a trace: decisions under the policies. */
  expected?: Record<'best' | 'half', Decisions>;
  /** The synthetic works: what to store where, and requests that are not stored. */
  stores?: [instance: number, hashes: BigUint64Array][];
  misses?: BigUint64Array[];
  /** The work as the file that peers read. */
  file?: () => Uint8Array;
}

const MASK = (1n << 64n) - 1n;

/** splitmix64, the hash that stands for a block's. */
function splitmix64(x: bigint): bigint {
  let z = (x + 0x9e3779b97f4a7c15n) & MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}

/** The u32 count of requests, then for each its u32 length and its u64 hashes, little-endian. */
function encode(requests: BigUint64Array[]): Uint8Array {
  const size = requests.reduce((sum, request) => sum + 4 + request.byteLength, 4);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, requests.length, true);
  let at = 4;
  for (const request of requests) {
    view.setUint32(at, request.length, true);
    bytes.set(new Uint8Array(request.buffer, request.byteOffset, request.byteLength), at + 4);
    at += 4 + request.byteLength;
  }
  return bytes;
}

/**
 * The conversation trace: conv512 is every request in its 512-token blocks, conv16 the first 3,000 in 16-token blocks,
 * 32 hashes made of each id.
 */
export function conversation(trace: string): Work[] {
  const lines = trace.split('\n').filter((line) => line.trim());
  const ids = lines.map((line) => (JSON.parse(line) as { hash_ids: number[] }).hash_ids);
  const cache = new Map<number, BigUint64Array>();
  const fine = (id: number) => {
    let hashes = cache.get(id);
    if (!hashes) {
      hashes = BigUint64Array.from({ length: 32 }, (_, j) =>
        splitmix64(((BigInt(id) << 5n) | BigInt(j)) + (1n << 40n)),
      );
      cache.set(id, hashes);
    }
    return hashes;
  };
  const coarse = ids.map((request) => BigUint64Array.from(request, (id) => splitmix64(BigInt(id))));
  const fineRequests = ids.slice(0, 3000).map((request) => {
    const hashes = new BigUint64Array(32 * request.length);
    request.forEach((id, k) => void hashes.set(fine(id), 32 * k));
    return hashes;
  });
  return [
    {
      name: 'conv512',
      instances: 16,
      requests: coarse,
      unique: new Set(ids.flat()).size,
      expected: {
        best: { checksum: 72378496, matched: 105710 },
        half: { checksum: 622640966, matched: 105710 },
      },
      file: () => encode(coarse),
    },
    {
      name: 'conv16',
      instances: 16,
      requests: fineRequests,
      unique: 32 * cache.size,
      expected: {
        best: { checksum: 4501500, matched: 810624 },
        half: { checksum: 39751419, matched: 810624 },
      },
      file: () => encode(fineRequests),
    },
  ];
}

/**
 * 1,000 chains of 1,000 blocks over 64 instances. synth1: each chain on one instance. synth2: on eight, each with 125
 * blocks more than the one before.
 */
export function synthetic(name: 'synth1' | 'synth2'): Work {
  const chains = (base: bigint, count: number) =>
    Array.from({ length: count }, (_, i) =>
      BigUint64Array.from({ length: 1000 }, (_, j) => splitmix64(base + BigInt(1000 * i + j))),
    );
  const requests = chains(1_000_000_000n, 1000);
  const stores: [number, BigUint64Array][] = [];
  requests.forEach((hashes, i) => {
    if (name === 'synth1') stores.push([i % 64, hashes]);
    else for (let j = 0; j < 8; j++) stores.push([(8 * i + j) % 64, hashes.subarray(0, 125 * (j + 1))]);
  });
  return { name, instances: 64, requests, unique: 1e6, stores, misses: chains(9_000_000_000n, 50) };
}

/**
 * Chooses an instance: candidates are those with the longest prefix, or all when none has any, and under the policy
 * `half` also when twice the longest is at most the request; of these the first at or after the last choice plus one.
 */
export function choose(lengths: Uint32Array, blocks: number, half: boolean, state: { next: number }) {
  let best = 0;
  for (let i = 0; i < lengths.length; i++) if (lengths[i] > best) best = lengths[i];
  const all = best === 0 || (half && 2 * best <= blocks);
  let instance = state.next;
  while (!all && lengths[instance] !== best) instance = (instance + 1) % lengths.length;
  state.next = (instance + 1) % lengths.length;
  return { instance, best };
}
