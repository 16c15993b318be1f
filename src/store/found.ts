/** What a get has found: an object, where it is read, and what is known of its bytes so far. */
import { MooncakeError } from '../core/errors.js';
import type { Replica } from '../master/api.js';
import type { StoreMissReason } from './api.js';
import type { Limits } from './batch.js';
import type { Coverage } from './coverage.js';
import type { Place, Session } from './session.js';

export interface FoundObject {
  readonly size: number;
  readonly checksum: bigint | undefined;
  /** Where it is read. */
  place: Place;
  /** Copies that have not been tried, best first. */
  others: readonly Replica[];
  /** It is being turned to its next copy. */
  turning: Promise<boolean> | undefined;
  /** When its lease ends, by the session's clock. */
  readonly expires: number;
  coverage: Coverage;
  /** Bytes that reads have asked for. */
  wanted: number;
  miss: StoreMissReason | undefined;
  /** What has arrived of it, for the hot cache. */
  copy: Uint8Array | undefined;
}

/** What went wrong between us and the owner, as a reason; undefined for what is the caller's own doing. */
export function failure(error: unknown): StoreMissReason | undefined {
  if (!(error instanceof MooncakeError)) return undefined;
  switch (error.code) {
    case 'ERR_INVALID_ARGUMENT':
    case 'ERR_ABORTED':
      return undefined;
    case 'ERR_TIMEOUT':
      return 'timeout';
    case 'ERR_CORRUPT':
      return 'corrupt';
    case 'ERR_SEGMENT':
      return 'removed';
    default:
      return 'peer-lost';
  }
}

export interface Located {
  readonly place: Place;
  readonly others: readonly Replica[];
}

/** The best copy that can be reached; a reason where none can. At once where nobody has to be asked. */
export function locate(
  session: Session,
  replicas: readonly Replica[],
  limits: Limits,
): Located | StoreMissReason | Promise<Located | StoreMissReason> {
  const ranked = session.rank(replicas.filter(({ state }) => state === 'complete'));
  if (ranked.length === 0) return 'incomplete';
  try {
    const place = session.place(ranked[0]);
    if (!(place instanceof Promise)) return { place, others: ranked.slice(1) };
    return search(session, ranked, limits, place);
  } catch (error) {
    return search(session, ranked, limits, Promise.reject(error));
  }
}

async function search(
  session: Session,
  ranked: readonly Replica[],
  limits: Limits,
  first: Promise<Place>,
): Promise<Located | StoreMissReason> {
  let reason: StoreMissReason = 'peer-lost';
  for (const [i, replica] of ranked.entries()) {
    try {
      const place = await limits.within(i === 0 ? first : session.place(replica));
      return { place, others: ranked.slice(i + 1) };
    } catch (error) {
      const why = failure(error);
      if (why === undefined) throw error;
      reason = why;
    }
  }
  return reason;
}
