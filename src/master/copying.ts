/**
 * Copies and moves under way: an object that stays readable gets copies in more segments, or one in another instead of one
 * that it has. A client reads the source and writes the targets; until it says that it is done, nobody is told of these.
 *
 *   start ─► targets reserved, source held against eviction ─► end: targets readable (and, of a move, the source gone)
 *                                                           ─► revoke: targets free, for nobody writes to them
 *                                                           ─► discarded: targets kept back, for somebody may
 *
 * One at a time for an object, and none while it is put. The verbs are in copies.ts.
 */
import type { Uuid } from './api.js';
import type { Books } from './books.js';
import { COPYING } from './table.js';

export interface Copying {
  readonly kind: 'copy' | 'move';
  readonly client: Uuid;
  readonly startedAt: number;
  /** What its end and its revocation have to name as well. */
  readonly token: string;
  /** Allocation that it reads; undefined once that is gone with its segment. */
  source: number | undefined;
  /** Allocations that it writes to, and how many there were before segments went. */
  targets: number[];
  readonly wanted: number;
}

export class CopiesUnderWay {
  readonly #books: Books;
  /** By record, in order of their start. */
  readonly #copying = new Map<number, Copying>();
  /**
   * Until when the end of a copy that was discarded may come, by client and key: it must not be taken for the end of the
   * client's next one, whose bytes are not written yet.
   */
  readonly #strays = new Map<string, number>();

  constructor(books: Books) {
    this.#books = books;
  }

  get count(): number {
    return this.#copying.size;
  }

  /** Space that clients may write to, and until when. */
  *reserved(): Generator<{ handle: number; until: number }> {
    const { putReleaseMs } = this.#books.options;
    for (const { targets, startedAt } of this.#copying.values()) {
      for (const handle of targets) yield { handle, until: startedAt + putReleaseMs };
    }
  }

  get(id: number): Copying | undefined {
    return this.#copying.get(id);
  }

  start(id: number, copying: Copying): void {
    const { table } = this.#books;
    this.#copying.set(id, copying);
    table.setFlags(id, table.flags(id) | COPYING);
    this.#charge(id, copying.targets.length);
    this.#books.journal?.reserved(copying.targets, copying.startedAt + this.#books.options.putReleaseMs);
  }

  /** Its targets become copies of the object like the others. */
  complete(id: number, copying: Copying, now: number): void {
    this.#forget(id, now);
    this.#books.addCopies(id, copying.targets);
  }

  /** It comes to nothing; its targets are free when nobody can be writing to them, at `safeAt`. */
  revoke(id: number, copying: Copying, safeAt: number, now: number): void {
    this.#charge(id, -copying.targets.length);
    this.#forget(id, now);
    if (safeAt <= now) this.#books.journal?.released(copying.targets);
    this.#books.keptBack.free(copying.targets, safeAt, now);
  }

  /** Ends an object's copy, if there is one, without its client, which may still be writing. */
  discard(id: number, now: number): void {
    const copying = this.#copying.get(id);
    if (!copying) return;
    const { options, table } = this.#books;
    const { client, startedAt } = copying;
    const until = startedAt + options.putReleaseMs;
    this.revoke(id, copying, until, now);
    if (until > now) this.#strays.set(strayKey(client, table.tenant(id), table.key(id)), until);
  }

  /** Discards those that did not end in time. */
  expire(now: number): void {
    const { putReleaseMs } = this.#books.options;
    for (const [id, { startedAt }] of this.#copying) {
      if (now - startedAt < putReleaseMs) break;
      this.discard(id, now);
    }
    for (const [key, until] of this.#strays) {
      if (until > now) break;
      this.#strays.delete(key);
    }
  }

  discardOf(client: Uuid, now: number): void {
    for (const [id, copying] of this.#copying) if (copying.client === client) this.discard(id, now);
  }

  /** An object keeps these of its readable copies: the one that is read may be among those that are lost. */
  noteLoss(id: number, staying: readonly number[]): void {
    const copying = this.#copying.get(id);
    if (copying?.source !== undefined && !staying.includes(copying.source)) copying.source = undefined;
  }

  /** Targets that are gone. */
  lose(id: number, loses: (handle: number, until: number) => boolean): void {
    const copying = this.#copying.get(id);
    if (!copying) return;
    const until = copying.startedAt + this.#books.options.putReleaseMs;
    const staying = copying.targets.filter((handle) => !loses(handle, until));
    this.#charge(id, staying.length - copying.targets.length);
    copying.targets = staying;
  }

  /** A client that ends or revokes a copy says that no write of it is under way. */
  hasEnded(client: Uuid, tenant: number, key: Uint8Array): void {
    if (this.#strays.size > 0) this.#strays.delete(strayKey(client, tenant, key));
  }

  /** Whether the client may still be at a copy of this key that was discarded. */
  isStray(client: Uuid, tenant: number, key: Uint8Array, now: number): boolean {
    return this.#strays.size > 0 && (this.#strays.get(strayKey(client, tenant, key)) ?? now) > now;
  }

  #forget(id: number, now: number): void {
    const { table } = this.#books;
    this.#copying.delete(id);
    table.setFlags(id, table.flags(id) & ~COPYING);
    this.#books.released(id, now);
  }

  #charge(id: number, copies: number): void {
    this.#books.tenantOf(id).usedBytes += copies * this.#books.table.size(id);
  }
}

function strayKey(client: Uuid, tenant: number, key: Uint8Array): string {
  return `${client} ${tenant} ${Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1')}`;
}
