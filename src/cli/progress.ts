/** One line on a terminal that says what is going on; nothing when standard error is not a terminal. */
export class Progress {
  readonly #live = process.stderr.isTTY === true;
  #shown = false;

  update(text: string): void {
    if (!this.#live) return;
    const width = (process.stderr.columns || 80) - 1;
    process.stderr.write(`\r\x1b[K${text.slice(0, width)}`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) process.stderr.write('\r\x1b[K');
    this.#shown = false;
  }
}
