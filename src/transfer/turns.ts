/** Things that are one caller's at a time: those who wait get them in their order. */
export class Turns<T> {
  readonly #free: T[];
  readonly #waiting: ((one: T) => void)[] = [];

  /** The last is handed out first. */
  constructor(free: T[]) {
    this.#free = free;
  }

  /** How many are free now. */
  get free(): number {
    return this.#free.length;
  }

  /** One that is free now. */
  take(): T | undefined {
    return this.#free.pop();
  }

  /** The next that is given back; `leave` ends the waiting, also where it was given just now. */
  wait(): { given: Promise<T>; leave(): void } {
    let resolve!: (one: T) => void;
    const given = new Promise<T>((settle) => this.#waiting.push((resolve = settle)));
    const leave = () => {
      const at = this.#waiting.indexOf(resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      else void given.then((one) => this.give(one));
    };
    return { given, leave };
  }

  give(one: T): void {
    const next = this.#waiting.shift();
    if (next) next(one);
    else this.#free.push(one);
  }
}
