/** What requests about segments say, and answers that they share. */
import { errors } from '../../core/errors.js';
import { json } from './http.js';

const MAX_GRACE_SECONDS = 3600;
const GRACE = `must be a non-negative integer no greater than ${MAX_GRACE_SECONDS}`;

export const BAD_GRACE = json({ error: `Invalid grace_period_seconds, ${GRACE}` }, 400);
export const NO_IDS = json({ error: 'Missing segment_ids' }, 400);
export const DONE = json({ status: 'success' });

/** A list of ids, or one; undefined where there are none. What is no text is nobody's id. */
export function idsOf(value: unknown): readonly string[] | undefined {
  if (typeof value === 'string') return value === '' ? undefined : [value];
  if (!Array.isArray(value) || value.length === 0) return undefined;
  return value.map(String);
}

/** Milliseconds; undefined for what is no grace period. */
export function graceOf(seconds: unknown): number | undefined {
  if (seconds === undefined) return 0;
  const isGrace = Number.isInteger(seconds) && (seconds as number) >= 0 && (seconds as number) <= MAX_GRACE_SECONDS;
  return isGrace ? (seconds as number) * 1000 : undefined;
}

/** Throws ERR_INVALID_ARGUMENT. */
export function checkProtocol(protocol: unknown): void {
  if (protocol !== undefined && protocol !== 'tcp') throw errors.invalidArgument('protocol', protocol, '"tcp"');
}
