/** The naive model of an object table: a Map by tenant and key, arrays as lists, and keys that are hard to tell apart. */
import fc from 'fast-check';

export interface ModelObject {
  readonly tenant: number;
  readonly key: Uint8Array;
  readonly id: number;
  complete: boolean;
  lookupUntil: number;
  leaseUntil: number;
  size: number;
  list: number;
}

const name = (tenant: number, key: Uint8Array) => `${tenant}:${Buffer.from(key).toString('latin1')}`;

export class ModelTable {
  readonly objects = new Map<string, ModelObject>();
  /** Oldest first. */
  readonly lists: ModelObject[][] = Array.from({ length: 8 }, () => []);

  find(tenant: number, key: Uint8Array): ModelObject | undefined {
    return this.objects.get(name(tenant, key));
  }

  insert(tenant: number, key: Uint8Array, id: number): ModelObject {
    const object = { tenant, key, id, complete: false, lookupUntil: 0, leaseUntil: 0, size: 0, list: -1 };
    this.objects.set(name(tenant, key), object);
    return object;
  }

  remove(object: ModelObject): void {
    this.unlink(object);
    this.objects.delete(name(object.tenant, object.key));
  }

  unlink(object: ModelObject): void {
    if (object.list < 0) return;
    const list = this.lists[object.list];
    list.splice(list.indexOf(object), 1);
    object.list = -1;
  }

  link(object: ModelObject, list: number): void {
    this.unlink(object);
    this.lists[list].push(object);
    object.list = list;
  }

  touch(object: ModelObject): void {
    if (object.list >= 0) this.link(object, object.list);
  }
}

/** Text to bytes, one byte a character. */
export const bytes = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));

export const STOCK = 'meta-llama/Llama-3.1-8B-Instruct@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@';

const digits = (alphabet: string, minLength: number, maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...alphabet), minLength, maxLength });

// Few distinct hashes, so that steps meet the same objects again.
const hash = fc.constantFrom('0', '7', 'f', '0123456789abcdef', 'a1').map((unit) => unit.repeat(64).slice(0, 64));
const around = fc.constantFrom('', STOCK, `${STOCK.slice(0, -2)}1@`, '@', 'x', 'a', '_0_k', '@half', 'p'.repeat(150));

/** Keys as engines make them, and keys made to be mistaken for each other. */
export const anyKey: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.tuple(around, hash, around).map(([before, hex, behind]) => bytes(before + hex + behind)),
  // Too short or odd runs, two runs, upper-case digits, digits that touch letters.
  fc
    .tuple(around, hash, fc.integer({ min: 0, max: 64 }), around)
    .map(([a, hex, n, b]) => bytes(`${a}${hex.slice(n)}${b}!`)),
  fc.tuple(around, hash, hash).map(([a, hex, other]) => bytes(a + hex + other)),
  fc.tuple(around, hash).map(([a, hex]) => bytes(a + hex.toUpperCase())),
  fc.tuple(around, hash).map(([a, hex]) => bytes(`${a}${hex}@${hex.slice(32)}`)),
  digits('0a@/', 1, 3).map(bytes),
  digits('f/@', 30, 36).map(bytes),
  fc.tuple(around, digits('g@/', 28, 36)).map(([a, tail]) => bytes(`${a}${tail}`)),
  fc.uint8Array({ minLength: 1, maxLength: 300 }),
  // At the edges of cells and of what XXH3 does at once.
  fc
    .tuple(fc.constantFrom(32, 33, 116, 117, 232, 233, 240, 241, 1000, 65535), fc.constantFrom(0, 1, 2))
    .map(([n, last]) => {
      const key = new Uint8Array(n).fill(0x7a);
      key[n - 1] = last;
      return key;
    }),
);
