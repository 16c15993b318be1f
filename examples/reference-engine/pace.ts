/** Time: turns for others on the event loop, and ends to waiting. */
import { setImmediate } from 'node:timers/promises';
import { MooncakeError } from 'mooncake-ts';

/** How long the engine computes before timers and sockets of the process get their turn. */
const TURN_MS = 10;

export class Pace {
  #since = performance.now();

  /** Lets others have a turn when the last was a while ago. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#since > TURN_MS) await this.pause();
  }

  /** Lets others have a turn. */
  async pause(): Promise<void> {
    await setImmediate();
    this.#since = performance.now();
  }
}

/** The promise, or ERR_TIMEOUT after `ms`. */
export async function within<T>(what: string, ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new MooncakeError('ERR_TIMEOUT', `${what} took longer than ${ms} ms`, { argument: what, value: ms }));
    }, ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
