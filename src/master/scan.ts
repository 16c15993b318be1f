/**
 * Work over all objects: removal by regular expression, removal of everything, listings. It is done in slices, between
 * which everybody else is served, and ends at a deadline with what it has done. Objects that exist all the while are met
 * exactly once; those that come or go meanwhile may be met or not.
 *
 * Regular expressions are RE2's and take time linear in the key: there is nothing that explodes.
 */
import { RE2JS } from 're2js';
import { errors } from '../core/errors.js';
import type { DiskReplica, Replica } from './api.js';
import type { Books } from './books.js';
import type { Removal } from './removal.js';
import { STATUS } from './status.js';

/** Milliseconds of work after which the event loop gets a turn. */
const SLICE_MS = 5;
const SLICE_OBJECTS = 256;
/**
 * A pattern is compiled and a key is matched in one piece, so both are bounded: {n} multiplies what is compiled, up to a
 * thousandfold, and a match may take a step for each instruction and character (some 15 ns).
 */
const MAX_PATTERN = 1024;
const MAX_REPEATS = 16;
const MAX_INSTRUCTIONS = 4096;
const MAX_STEPS = 2 ** 22;

/** Where the bytes of an object are. */
export interface ObjectCopies {
  readonly replicas: readonly Replica[];
  readonly disk: DiskReplica | undefined;
}

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

  async copiesByRegex(pattern: string, tenantName: string): Promise<Map<string, ObjectCopies>> {
    const matches = compilePattern(pattern);
    const found = new Map<string, ObjectCopies>();
    const books = this.#books;
    const { table } = books;
    await this.#visit(tenantName, (id) => {
      if (!books.isReadable(id) || books.isAbsent(id)) return;
      const key = table.keyText(id);
      if (!matches(key)) return;
      const replicas = books.replicas(books.offered(id), table.size(id), 'complete');
      found.set(key, { replicas, disk: books.diskCopies.replica(id) });
    });
    return found;
  }

  async replicasByRegex(pattern: string, tenantName: string): Promise<Map<string, readonly Replica[]>> {
    const found = await this.copiesByRegex(pattern, tenantName);
    return new Map(
      [...found].filter(([, { replicas }]) => replicas.length > 0).map(([k, { replicas }]) => [k, replicas]),
    );
  }

  async keys(tenantName: string): Promise<string[]> {
    const found: string[] = [];
    await this.#visit(tenantName, (id) => {
      if (this.#books.isReadable(id) && !this.#books.isAbsent(id)) found.push(this.#books.table.keyText(id));
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
      // One look at the clock more than there are ids: in a table that was larger once, slices may have none.
      for (let at = 0; at <= part.ids.length; at++) {
        const time = performance.now();
        if (time - started > options.scanDeadlineMs) return;
        if (time - slice > SLICE_MS) {
          await new Promise((resolve) => setImmediate(resolve));
          slice = performance.now();
          now = this.#books.begin();
        }
        const id = part.ids[at] ?? 0;
        if (!table.has(id) || table.tenant(id) !== tenant.number) continue;
        if (this.#books.settle(id) !== 0) visit(id, now);
      }
    } while (cursor !== 0);
  }
}

/**
 * Whether a pattern is found in a text. Throws ERR_INVALID_ARGUMENT for what is no pattern of RE2 and for what would take
 * too long; the latter may depend on the text.
 */
function compilePattern(pattern: unknown): (text: string) => boolean {
  if (typeof pattern !== 'string' || pattern.length === 0 || pattern.length > MAX_PATTERN) {
    throw errors.invalidArgument('pattern', pattern, `a regular expression, 1 to ${MAX_PATTERN} characters long`);
  }
  const refuse = (expected: string) => errors.invalidArgument('pattern', pattern, expected);
  if ((pattern.match(/\{\d/g)?.length ?? 0) > MAX_REPEATS) {
    throw refuse(`a regular expression with at most ${MAX_REPEATS} counted repeats`);
  }
  let compiled: RE2JS;
  try {
    compiled = RE2JS.compile(pattern);
  } catch (error) {
    const why = (error as Error).message;
    throw refuse(`a regular expression of RE2, which has no back-references and no look-around (${why})`);
  }
  const instructions = compiled.programSize();
  if (instructions > MAX_INSTRUCTIONS) throw refuse(`a regular expression of at most ${MAX_INSTRUCTIONS} instructions`);
  return (text) => {
    if (instructions * text.length > MAX_STEPS) {
      throw refuse(`simpler: ${instructions} instructions take too long for a key of ${text.length} characters`);
    }
    return compiled.test(text);
  };
}
