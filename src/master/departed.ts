/**
 * Space of segments that were unmounted, which somebody may still be reading under a lease or writing for a put. The
 * memory may come back, as when a client was taken for lost: what is mounted again over it keeps that space back.
 */
import type { SegmentInfo, Uuid } from './api.js';

/** Bytes of a segment that must not be handed out before a time. */
export interface Claim {
  readonly offset: number;
  readonly size: number;
  readonly until: number;
}

/** Claims that are kept one by one; what there is of more is known by stripes of the segment. */
const MOST_CLAIMS = 4096;

/**
 * Claims as they are found, in bounded memory: millions of objects may be read at the time when their segment goes, and the
 * memory may be mounted again at once. Of many, a stripe is claimed as long as the last claim in it.
 */
export class ClaimList {
  readonly #length: number;
  #claims: Claim[] = [];
  #stripes: Float64Array | undefined;

  constructor(length: number) {
    this.#length = length;
  }

  add(claim: Claim): void {
    if (this.#stripes) {
      this.#stripe(this.#stripes, claim);
    } else if (this.#claims.push(claim) > MOST_CLAIMS) {
      const stripes = new Float64Array(MOST_CLAIMS).fill(Number.NEGATIVE_INFINITY);
      for (const one of this.#claims) this.#stripe(stripes, one);
      this.#stripes = stripes;
      this.#claims = [];
    }
  }

  get all(): readonly Claim[] {
    if (!this.#stripes) return this.#claims;
    const size = this.#width;
    const claims: Claim[] = [];
    this.#stripes.forEach((until, i) => {
      if (until > Number.NEGATIVE_INFINITY) claims.push({ offset: i * size, size, until });
    });
    return claims;
  }

  get #width(): number {
    return Math.ceil(this.#length / MOST_CLAIMS);
  }

  #stripe(stripes: Float64Array, { offset, size, until }: Claim): void {
    const last = Math.floor((offset + size - 1) / this.#width);
    for (let i = Math.floor(offset / this.#width); i <= last; i++) stripes[i] = Math.max(stripes[i], until);
  }
}

export interface Departed {
  readonly info: Readonly<SegmentInfo>;
  readonly client: Uuid;
  readonly claims: readonly Claim[];
  /** When the last of them ends. */
  readonly until: number;
}

export class DepartedSegments {
  #departed: Departed[] = [];

  /** Those of which something may be claimed. */
  get all(): readonly Departed[] {
    return this.#departed;
  }

  /** A segment goes. What is claimed in it now is all that is left of earlier times when it was mounted. */
  note(info: Readonly<SegmentInfo>, client: Uuid, claims: readonly Claim[], now: number): void {
    const same = (old: Departed) =>
      old.client === client &&
      old.info.id === info.id &&
      old.info.base === info.base &&
      old.info.length === info.length;
    this.#departed = this.#departed.filter((old) => old.until > now && !same(old));
    if (claims.length === 0) return;
    this.#departed.push({ info, client, claims, until: claims.reduce((last, { until }) => Math.max(last, until), 0) });
  }

  /** What of a segment that is mounted is claimed, in units of `alignment`, in order and without overlaps. */
  claims(info: Readonly<SegmentInfo>, client: Uuid, alignment: number, now: number): Claim[] {
    const found: { offset: number; size: number; until: number }[] = [];
    const capacity = info.length - (info.length % alignment);
    for (const old of this.#departed) {
      for (const shift of shifts(old, info, client)) {
        for (const { offset, size, until } of old.claims) {
          if (until <= now) continue;
          const start = Math.max(0, Math.floor((offset + shift) / alignment) * alignment);
          const end = Math.min(capacity, Math.ceil((offset + shift + size) / alignment) * alignment);
          if (start < end) found.push({ offset: start, size: end - start, until });
        }
      }
    }
    found.sort((a, b) => a.offset - b.offset);
    const apart: typeof found = [];
    for (const claim of found) {
      const last = apart.at(-1);
      if (!last || last.offset + last.size <= claim.offset) {
        apart.push(claim);
        continue;
      }
      last.size = Math.max(last.size, claim.offset + claim.size - last.offset);
      last.until = Math.max(last.until, claim.until);
    }
    return apart;
  }
}

/** How far offsets move from an old segment to a new one, in each way in which both may name the same bytes. */
function shifts({ info: old, client: owner }: Departed, info: Readonly<SegmentInfo>, client: Uuid): Set<number> {
  const ways = new Set<number>();
  // The same process: its addresses say it.
  if (owner === client) ways.add(old.base - info.base);
  // Transfers find bytes by endpoint, name and offset.
  if (old.id === info.id || (old.name === info.name && old.endpoint === info.endpoint)) ways.add(0);
  return ways;
}

/** Whether two segments of these clients may name the same bytes. */
export function mayShareBytes(
  old: Readonly<SegmentInfo>,
  owner: Uuid,
  info: Readonly<SegmentInfo>,
  client: Uuid,
): boolean {
  const isSame = old.id === info.id || (old.name === info.name && old.endpoint === info.endpoint);
  const overlaps = info.base < old.base + old.length && old.base < info.base + info.length;
  return isSame || (owner === client && overlaps);
}
