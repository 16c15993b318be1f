/** Object groups: names within a tenant, numbers in the table, members by record id. An empty group is forgotten. */
export class Groups {
  readonly #numbers = new Map<string, number>();
  readonly #groups: ({ name: string; members: Set<number> } | undefined)[] = [undefined];
  readonly #free: number[] = [];

  /** Whether there are any: most stores have none, and need not ask for each object. */
  get none(): boolean {
    return this.#numbers.size === 0;
  }

  /** Whether this is the number of the tenant's group of that name. */
  is(number: number, tenant: number, name: string): boolean {
    return this.#numbers.get(`${tenant} ${name}`) === number;
  }

  /** Adds a record to a group, which may be new; the group's number. */
  join(tenant: number, name: string, id: number): number {
    const full = `${tenant} ${name}`;
    let number = this.#numbers.get(full);
    if (number === undefined) {
      number = this.#free.pop() ?? this.#groups.length;
      this.#numbers.set(full, number);
      this.#groups[number] = { name: full, members: new Set() };
    }
    this.#groups[number]?.members.add(id);
    return number;
  }

  leave(number: number, id: number): void {
    const group = this.#groups[number];
    if (!group) return;
    group.members.delete(id);
    if (group.members.size > 0) return;
    this.#numbers.delete(group.name);
    this.#groups[number] = undefined;
    this.#free.push(number);
  }

  /** The name within its tenant. */
  name(number: number): string {
    const full = this.#groups[number]?.name ?? '';
    return full.slice(full.indexOf(' ') + 1);
  }

  members(number: number): ReadonlySet<number> {
    return this.#groups[number]?.members ?? NOBODY;
  }
}

const NOBODY: ReadonlySet<number> = new Set();
