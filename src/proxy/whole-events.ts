/** Cuts a stream of server-sent events at the ends of events, whatever the pieces it comes in; the bytes stay as they are. */

/** An event longer than this is passed on in parts. */
const MAX_EVENT = 256 * 1024;
/** A blank line, as servers write it. */
const ENDS = ['\n\n', '\r\n\r\n', '\r\r'];

export class WholeEvents {
  #held: Buffer | undefined;

  /** What can be passed on now. */
  push(chunk: Buffer): Buffer | undefined {
    const bytes = this.#held === undefined ? chunk : Buffer.concat([this.#held, chunk]);
    let whole = 0;
    for (const end of ENDS) {
      const at = bytes.lastIndexOf(end);
      if (at >= 0) whole = Math.max(whole, at + end.length);
    }
    if (bytes.length - whole > MAX_EVENT) whole = bytes.length;
    this.#held = whole < bytes.length ? bytes.subarray(whole) : undefined;
    return whole > 0 ? bytes.subarray(0, whole) : undefined;
  }

  /** What is left when the stream has ended. */
  rest(): Buffer | undefined {
    const held = this.#held;
    this.#held = undefined;
    return held;
  }
}
