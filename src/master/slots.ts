/** Values that records name by a number, for what few of them have: 0 is none, numbers that were given back are used again. */
export class Slots<T> {
  readonly #values: (T | undefined)[] = [undefined];
  readonly #free: number[] = [];

  at(number: number): T | undefined {
    return this.#values[number];
  }

  keep(value: T): number {
    const number = this.#free.pop() ?? this.#values.length;
    this.#values[number] = value;
    return number;
  }

  forget(number: number): void {
    if (number === 0) return;
    this.#values[number] = undefined;
    this.#free.push(number);
  }
}
