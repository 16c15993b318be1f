/**
 * Host memory through which bytes pass on their way to and from GPUs: a few windows of one size, pinned when a GPU first copies
 * to or from them. They bound what staging takes of a process, however much is moved.
 */
import { type Limits, watch } from '../limits.js';
import { Turns } from '../turns.js';

/** What a GPU copies at its full speed, and little enough that several are under way at once. */
export const WINDOW_BYTES = 4 * 2 ** 20;
/** Of one side, for all its moves. */
export const WINDOWS = 6;

/** Numbers of GPUs' segments: from here to those of the store's objects (src/store/api.ts). */
export const FIRST_DEVICE = 0xf000_0000;
export const LAST_DEVICE = 0xfffe_ffff;

/** Memory that is registered twice: for copies with GPUs, and with whatever moves the bytes on. */
export interface WindowMemory {
  /** Its segment in copies with GPUs. */
  readonly near: number;
  /** Its segment where the bytes come from or go to. */
  readonly far: number;
}

export interface Window extends WindowMemory {
  /** Where it begins in its memory. */
  readonly offset: number;
  /** Nothing of the caller touches it any more. */
  release(): void;
}

export class DeviceWindows {
  readonly #make: (bytes: number) => WindowMemory;
  #made: { memory: WindowMemory; turns: Turns<number> } | undefined;

  /** `make` is called once, when the first window is wanted. */
  constructor(make: (bytes: number) => WindowMemory) {
    this.#make = make;
  }

  /** A window, at once or when one is free; those who wait get them in their order. Throws ERR_TIMEOUT, ERR_ABORTED. */
  async take(limits: Limits): Promise<Window> {
    this.#made ??= {
      memory: this.#make(WINDOWS * WINDOW_BYTES),
      turns: new Turns(Array.from({ length: WINDOWS }, (_, i) => i * WINDOW_BYTES)),
    };
    const { memory, turns } = this.#made;
    const offset = await waitFor(turns, limits);
    let held = true;
    const release = () => {
      if (held) turns.give(offset);
      held = false;
    };
    return { ...memory, offset, release };
  }
}

/** The next one, at once where one is free. Throws ERR_TIMEOUT, ERR_ABORTED. */
export async function waitFor<T>(turns: Turns<T>, limits: Limits): Promise<T> {
  if (turns.free > 0) return turns.take() as T;
  const { given, leave } = turns.wait();
  return new Promise((resolve, reject) => {
    const stop = watch('waiting for pinned memory', limits, (error) => {
      leave();
      reject(error);
    });
    void given.then((one) => {
      stop();
      resolve(one);
    });
  });
}
