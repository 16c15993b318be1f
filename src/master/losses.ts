/**
 * Which keys were evicted or removed lately, so that a miss can say why. Bounded: a table of buckets of four, each a
 * 32-bit fingerprint of the key and a reason; the oldest of a bucket gives way. A key that is not remembered counts as
 * absent; one in a billion is taken for another's, which changes a counter and nothing else.
 */
export type LossReason = 'evicted' | 'removed';

const WAYS = 4;
const SEED = 0x2545f491;

export class RecentLosses {
  readonly #mask: number;
  readonly #prints: Uint32Array;
  readonly #reasons: Uint8Array;
  /** The way of each bucket that is written next. */
  readonly #next: Uint8Array;
  #bucket = 0;
  #print = 0;

  /** Remembers at least `entries` keys where they spread evenly. */
  constructor(entries: number) {
    const buckets = 2 ** Math.ceil(Math.log2(Math.max(1, entries / WAYS)));
    this.#mask = buckets - 1;
    this.#prints = new Uint32Array(buckets * WAYS);
    this.#reasons = new Uint8Array(buckets * WAYS);
    this.#next = new Uint8Array(buckets);
  }

  get byteLength(): number {
    return this.#prints.byteLength + this.#reasons.byteLength + this.#next.byteLength;
  }

  note(tenant: number, key: Uint8Array, reason: LossReason): void {
    let at = this.#find(tenant, key);
    if (at < 0) {
      const way = this.#next[this.#bucket];
      this.#next[this.#bucket] = (way + 1) % WAYS;
      at = this.#bucket * WAYS + way;
      this.#prints[at] = this.#print;
    }
    this.#reasons[at] = reason === 'evicted' ? 1 : 2;
  }

  reason(tenant: number, key: Uint8Array): LossReason | 'absent' {
    const at = this.#find(tenant, key);
    return at < 0 ? 'absent' : this.#reasons[at] === 1 ? 'evicted' : 'removed';
  }

  /** The key's entry, or -1; sets its bucket and fingerprint. */
  #find(tenant: number, key: Uint8Array): number {
    let hash = tenant ^ SEED;
    let other = Math.imul(tenant, 0x85ebca6b) ^ key.length;
    const whole = key.length & ~3;
    let i = 0;
    for (; i < whole; i += 4) {
      const word = key[i] | (key[i + 1] << 8) | (key[i + 2] << 16) | (key[i + 3] << 24);
      hash = Math.imul(hash ^ word, 0x9e3779b1);
      hash ^= hash >>> 15;
      other = Math.imul(other ^ word, 0xcc9e2d51);
      other ^= other >>> 13;
    }
    for (; i < key.length; i++) {
      hash = Math.imul(hash ^ key[i], 0x01000193);
      other = Math.imul(other ^ key[i], 0x1b873593);
      other ^= other >>> 14;
    }
    // Two hashes that know nothing of each other: otherwise the bucket would add nothing to the fingerprint.
    this.#bucket = (Math.imul(other ^ (other >>> 16), 0xc2b2ae35) >>> 6) & this.#mask;
    hash ^= key.length;
    // 0 marks an entry that was never written.
    this.#print = hash >>> 0 || 1;
    for (let at = this.#bucket * WAYS; at < this.#bucket * WAYS + WAYS; at++) {
      if (this.#prints[at] === this.#print) return at;
    }
    return -1;
  }
}
