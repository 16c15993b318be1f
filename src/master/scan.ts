/**
 * Work over all objects: removal by regular expression, removal of everything, listings. It is done in slices, between
 * which everybody else is served, and ends at a deadline with what it has done. Objects that exist all the while are met
 * exactly once; those that come or go meanwhile may be met or not.
 *
 * Regular expressions are RE2's and take time linear in the key: there is nothing that explodes.
 */
import { RE2JS } from 're2js';
import { errors } from '../core/errors.js';
import type { Replica } from './api.js';
import type { Books } from './books.js';
import type { Removal } from './removal.js';
import { STATUS } from './status.js';

/** Milliseconds of work after which the event loop gets a turn. */
const SLICE_MS = 5;
const SLICE_OBJECTS = 256;
/** Time for a key is the pattern's instructions times the key's bytes, so both have a limit (a key's is 65,535 bytes). */
const MAX_PATTERN = 1024;
const MAX_INSTRUCTIONS = 4096;

export class Scans {
  readonly #books: Books;
  readonly #removal: Removal;

  constructor(books: Books, removal: Removal) {
    this.#books = books;
    this.#removal = removal;
  }

  async removeByRegex(pattern: string, force: boolean, tenantName: string): Promise<number> {
    const matches = compilePattern(pattern);
    return this.#remove(force, tenantName, (id) => matches(this.#books.table.keyText(id)));
  }

  removeAll(force: boolean, tenantName: string): Promise<number> {
    return this.#remove(force, tenantName, () => true);
  }

  async replicasByRegex(pattern: string, tenantName: string): Promise<Map<string, readonly Replica[]>> {
    const matches = compilePattern(pattern);
    const found = new Map<string, readonly Replica[]>();
    const { table } = this.#books;
    await this.#visit(tenantName, (id) => {
      if (!this.#books.isReadable(id)) return;
      const key = table.keyText(id);
      if (matches(key)) found.set(key, this.#books.replicas(this.#books.handles(id), table.size(id), 'complete'));
    });
    return found;
  }

  async keys(tenantName: string): Promise<string[]> {
    const found: string[] = [];
    await this.#visit(tenantName, (id) => {
      if (this.#books.isReadable(id)) found.push(this.#books.table.keyText(id));
    });
    return found;
  }

  async #remove(force: boolean, tenantName: string, wanted: (id: number) => boolean): Promise<number> {
    let removed = 0;
    await this.#visit(tenantName, (id, now) => {
      if (wanted(id) && this.#removal.removeObject(id, force, now) === STATUS.ok) removed++;
    });
    return removed;
  }

  async #visit(tenantName: string, visit: (id: number, now: number) => void): Promise<void> {
    const { table, tenants, options } = this.#books;
    const tenant = tenants.find(tenantName);
    if (!tenant) {
      if (tenants.closed) throw errors.unknownTenant(tenantName);
      return;
    }
    const started = performance.now();
    let slice = started;
    let cursor = 0;
    do {
      const part = table.scan(cursor, SLICE_OBJECTS);
      cursor = part.cursor;
      let now = this.#books.begin();
      for (const id of part.ids) {
        const time = performance.now();
        if (time - started > options.scanDeadlineMs) return;
        if (time - slice > SLICE_MS) {
          await new Promise((resolve) => setImmediate(resolve));
          slice = performance.now();
          now = this.#books.begin();
        }
        if (table.has(id) && table.tenant(id) === tenant.number) visit(id, now);
      }
    } while (cursor !== 0);
  }
}

/** Whether a pattern is found in a text. Throws ERR_INVALID_ARGUMENT for what is no pattern of RE2. */
function compilePattern(pattern: unknown): (text: string) => boolean {
  if (typeof pattern !== 'string' || pattern.length === 0 || pattern.length > MAX_PATTERN) {
    throw errors.invalidArgument('pattern', pattern, `a regular expression, 1 to ${MAX_PATTERN} characters long`);
  }
  let compiled: RE2JS;
  try {
    compiled = RE2JS.compile(pattern);
  } catch (error) {
    const expected = `a regular expression of RE2, which has no back-references and no look-around (${(error as Error).message})`;
    throw errors.invalidArgument('pattern', pattern, expected);
  }
  if (compiled.programSize() > MAX_INSTRUCTIONS) {
    throw errors.invalidArgument(
      'pattern',
      pattern,
      `a regular expression of at most ${MAX_INSTRUCTIONS} instructions`,
    );
  }
  return (text) => compiled.test(text);
}
