/** Explicit removal. What a reader may still be reading is kept back until its lease has run out (kept-back.ts). */
import type { Keys } from '../core/keys.js';
import type { Status } from './api.js';
import type { Books } from './books.js';
import { checkKeys } from './check.js';
import { STATUS } from './status.js';

export class Removal {
  readonly #books: Books;

  constructor(books: Books) {
    this.#books = books;
  }

  remove(keys: Keys, force: boolean, tenantName: string): Status[] {
    checkKeys(keys);
    const now = this.#books.begin();
    const { tenants, table } = this.#books;
    const tenant = tenants.find(tenantName);
    return Array.from({ length: keys.length }, (_, i) => {
      if (!tenant) return tenants.closed ? STATUS.unknownTenant : STATUS.notFound;
      const id = table.find(tenant.number, keys.at(i));
      return id === 0 ? STATUS.notFound : this.removeObject(id, force, now);
    });
  }

  /** Removes an object that exists. Unless forced, not while it is written (-703) or protected by a lease (-706). */
  removeObject(id: number, force: boolean, now: number): Status {
    const put = this.#books.puts.get(id);
    if (!force) {
      if (put) return STATUS.notReady;
      if (this.#books.isLeased(id, now)) return STATUS.leased;
    }
    if (this.#books.isReadable(id)) this.#books.drop(id, 'removed', now);
    if (put) this.#books.discardPut(id, put, now);
    return STATUS.ok;
  }
}
