/**
 * How much of what is in the way one call may pass over, objects that are protected or entries that are out of date: some
 * milliseconds of work. Where millions were protected at once, what is left over is for the calls that follow; until then
 * they have what was found so far, and a put for which that is not enough is refused, as when nothing may go.
 */
const MOST = 8192;

export class Patience {
  #left = MOST;

  /** Whether one more may be passed over. */
  take(): boolean {
    return this.#left-- > 0;
  }

  get isOver(): boolean {
    return this.#left <= 0;
  }

  /** Of the next call. */
  renew(): void {
    this.#left = MOST;
  }
}
