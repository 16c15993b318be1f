/** The client of an object's last put, as its record names it. */
import type { Uuid } from './api.js';

export const NOBODY = 0;

/** A client as a record names it: its id folded to 32 bits, so that clients that are gone leave nothing behind. */
export function ownerOf(client: Uuid): number {
  if (client === lastClient) return lastOwner;
  let folded = 0;
  for (let at = 0; at < client.length; at += 8) folded ^= Number.parseInt(client.slice(at, at + 8), 16);
  lastClient = client;
  lastOwner = folded >>> 0 || 1;
  return lastOwner;
}

// Batches are of one client each.
let lastClient = '';
let lastOwner = NOBODY;
