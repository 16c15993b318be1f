/** Explicit removal. What a reader may still be reading is kept back until its lease has run out (kept-back.ts). */
import { string } from '../core/check.js';
import type { Keys } from '../core/keys.js';
import type { Status, Uuid } from './api.js';
import type { Books } from './books.js';
import { checkKeys, checkUuid } from './check.js';
import { STATUS } from './status.js';
import { BUSY } from './table.js';

export class Removal {
  readonly #books: Books;

  constructor(books: Books) {
    this.#books = books;
  }

  remove(keys: Keys, force: boolean, tenantName: string): Status[] {
    checkKeys(keys);
    const now = this.#books.begin();
    const { tenants } = this.#books;
    const tenant = tenants.find(tenantName);
    return Array.from({ length: keys.length }, (_, i) => {
      if (!tenant) return tenants.closed ? STATUS.unknownTenant : STATUS.notFound;
      const id = this.#books.find(tenant.number, keys.at(i));
      return id === 0 ? STATUS.notFound : this.removeObject(id, force, now);
    });
  }

  /**
   * Takes copies of this client's readable objects away: those in segments of a name, or all where it is empty. -703,
   * -704, -706 as for removal, -601 for an object of another, -101 where no copy is there.
   */
  clear(client: Uuid, keys: Keys, segmentName: string, tenantName: string): Status[] {
    checkUuid('client', client);
    checkKeys(keys);
    string('segmentName', segmentName);
    const now = this.#books.begin();
    const { tenants, table, puts } = this.#books;
    const tenant = tenants.find(tenantName);
    return Array.from({ length: keys.length }, (_, i) => {
      if (!tenant) return tenants.closed ? STATUS.unknownTenant : STATUS.notFound;
      const id = this.#books.find(tenant.number, keys.at(i));
      if (id === 0) return STATUS.notFound;
      if (puts.has(id)) return STATUS.notReady;
      if (!this.#books.isOwner(id, client)) return STATUS.notOwner;
      if (this.#books.isLeased(id, now)) return STATUS.leased;
      if ((table.flags(id) & BUSY) !== 0) return STATUS.notReady;
      if (segmentName !== '') {
        return this.#books.dropCopies(id, segmentName, now) ? STATUS.ok : STATUS.segmentNotFound;
      }
      this.#books.drop(id, 'removed', now);
      return STATUS.ok;
    });
  }

  /** Removes an object that exists. Unless forced, not while it is written or copied (-703) or under a lease (-706). */
  removeObject(id: number, force: boolean, now: number): Status {
    const put = this.#books.puts.get(id);
    if (!force) {
      if (put) return STATUS.notReady;
      if (this.#books.isLeased(id, now)) return STATUS.leased;
      if ((this.#books.table.flags(id) & BUSY) !== 0) return STATUS.notReady;
    }
    if (this.#books.isReadable(id)) this.#books.drop(id, 'removed', now);
    if (put) this.#books.discardPut(id, put, now);
    return STATUS.ok;
  }
}
