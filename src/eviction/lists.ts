/**
 * Doubly linked lists over the slots 0 to slots - 1, in two typed arrays: a slot is in at most one list. Every list is
 * a ring closed by a sentinel of its own, behind the slots, so linking and unlinking know no special cases:
 *
 *   list k:  slots + k ⇄ oldest ⇄ … ⇄ newest ⇄ slots + k
 */
export class Lists {
  readonly #slots: number;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(slots: number, lists: number) {
    this.#slots = slots;
    this.#next = new Int32Array(slots + lists);
    this.#previous = new Int32Array(slots + lists);
    for (let sentinel = slots; sentinel < slots + lists; sentinel++) {
      this.#next[sentinel] = this.#previous[sentinel] = sentinel;
    }
  }

  isEmpty(list: number): boolean {
    return this.#next[this.#slots + list] === this.#slots + list;
  }

  /** The slot that has been in the list for longest. The list must not be empty. */
  oldest(list: number): number {
    return this.#next[this.#slots + list];
  }

  /** The slot that follows `slot`, or -1 when it is the newest of its list. */
  after(slot: number): number {
    const next = this.#next[slot];
    return next < this.#slots ? next : -1;
  }

  /** Adds `slot`, which is in no list, as the newest. */
  append(list: number, slot: number): void {
    this.#link(this.#previous[this.#slots + list], slot, this.#slots + list);
  }

  /** Adds `slot`, which is in no list, as the oldest. */
  prepend(list: number, slot: number): void {
    this.#link(this.#slots + list, slot, this.#next[this.#slots + list]);
  }

  /** Adds `slot`, which is in no list, right after `anchor`, which is in one. */
  insertAfter(anchor: number, slot: number): void {
    this.#link(anchor, slot, this.#next[anchor]);
  }

  /** Takes `slot` out of the list it is in. */
  unlink(slot: number): void {
    const previous = this.#previous[slot];
    const next = this.#next[slot];
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  #link(previous: number, slot: number, next: number): void {
    this.#next[previous] = slot;
    this.#previous[slot] = previous;
    this.#next[slot] = next;
    this.#previous[next] = slot;
  }
}
