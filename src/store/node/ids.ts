/** Ids of segments in the REST API: their halves as decimal numbers, as the stock service writes them. */
import type { Uuid } from '../../master/api.js';

const HALF = 16;

export function formatId(id: Uuid): string {
  return [id.slice(0, HALF), id.slice(HALF)].map((half) => BigInt(`0x${half}`).toString()).join('-');
}

/** Undefined for what is no id. */
export function parseId(text: string): Uuid | undefined {
  const halves = /^(\d{1,20})-(\d{1,20})$/.exec(text);
  if (!halves) return undefined;
  const id = [halves[1], halves[2]].map((half) => BigInt(half).toString(16).padStart(HALF, '0')).join('');
  return id.length === 2 * HALF ? id : undefined;
}
