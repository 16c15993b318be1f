/**
 * The clients of a master, known by their pings. A client is in order once it has remounted its segments: that is how a client
 * learns that the master was restarted. One that was silent for `ttlMs` is gone, and what it lent goes with it.
 */
import type { Uuid } from '../api.js';

/** Numbers of Mooncake's ClientStatus. */
export const CLIENT = { inOrder: 1, mustRemount: 2 } as const;

interface Client {
  lastSeen: number;
  inOrder: boolean;
}

export class Clients {
  readonly #clients = new Map<Uuid, Client>();
  readonly #ttlMs: number;
  readonly #now: () => number;

  constructor(ttlMs: number, now: () => number) {
    this.#ttlMs = ttlMs;
    this.#now = now;
  }

  get count(): number {
    return this.#clients.size;
  }

  /** Those in order. Counted when asked: there are few, and it is asked rarely. */
  get active(): number {
    let count = 0;
    for (const { inOrder } of this.#clients.values()) if (inOrder) count++;
    return count;
  }

  /** A sign of life, of whatever kind; whether the client is to remount. */
  seen(id: Uuid): (typeof CLIENT)[keyof typeof CLIENT] {
    const client = this.#clients.get(id);
    if (client) client.lastSeen = this.#now();
    return client?.inOrder ? CLIENT.inOrder : CLIENT.mustRemount;
  }

  /** It lends memory from now on, and is watched: one that never pings is gone like any other. */
  lends(id: Uuid): void {
    if (!this.#clients.has(id)) this.#clients.set(id, { lastSeen: this.#now(), inOrder: false });
    else this.seen(id);
  }

  remounted(id: Uuid): void {
    this.#clients.set(id, { lastSeen: this.#now(), inOrder: true });
  }

  /** Nobody could be heard for so long: that is no silence of theirs. */
  forgive(ms: number): void {
    for (const client of this.#clients.values()) client.lastSeen += ms;
  }

  /** Forgets the clients that were silent for too long; which they are. */
  expire(): Uuid[] {
    const since = this.#now() - this.#ttlMs;
    const gone: Uuid[] = [];
    for (const [id, { lastSeen }] of this.#clients) {
      if (lastSeen > since) continue;
      this.#clients.delete(id);
      gone.push(id);
    }
    return gone;
  }
}
