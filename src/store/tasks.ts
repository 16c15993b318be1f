/** The moves of one call, a few at a time: whoever started them waits until none touches his memory any more. */

export class Tasks {
  readonly #most: number;
  readonly #running = new Set<Promise<void>>();
  #failed: { error: unknown } | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  /** Starts a task when there is room for it. False where one has failed: no more are started. */
  async start(task: () => Promise<void>): Promise<boolean> {
    while (this.#running.size >= this.#most) await Promise.race(this.#running);
    if (this.#failed) return false;
    const running = task()
      .catch((error: unknown) => {
        this.#failed ??= { error };
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
    return true;
  }

  /** Resolves when all have ended; throws what the first failed with. */
  async ended(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failed) throw this.#failed.error;
  }
}
