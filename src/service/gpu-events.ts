/**
 * Events of engines' GPUs: what an engine has given to its stream is over when the event that it recorded behind it is. The
 * service waits for them with a copy of a few bytes that the accelerator begins when the event is over: it can be given up at any
 * time, has its deadline, and takes no thread.
 */
import type { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { Addon } from '../native/addon.js';
import { DescriptorList } from '../transfer/descriptor-list.js';
import { handle64 } from '../transfer/engine/memory.js';
import { NativePlane } from '../transfer/engine/native-plane.js';

/** A step of the engine's is over by then, or its GPU has a fault. */
const WAIT_MS = 60_000;
const BYTES = 16;

export class GpuEvents {
  readonly #addon: Addon;
  /** Of each GPU, the copy that waits. */
  readonly #copies = new Map<string, Descriptors>();
  #plane: NativePlane | undefined;
  #host = 0;

  constructor(addon: Addon) {
    this.#addon = addon;
  }

  /**
   * An engine's, by the 64 bytes of each one's cuIpcGetEventHandle.
   * @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED, and has opened none then
   */
  open(argument: string, device: string, handles: readonly unknown[]): EngineEvents {
    const plane = this.#open();
    const opened: number[] = [];
    try {
      for (const [index, handle] of handles.entries()) {
        opened.push(plane.openEvent(device, handle64(`${argument}.handles[${index}]`, handle as Uint8Array)));
      }
      const copy = this.#copy(plane, device);
      return new EngineEvents(plane, copy, opened);
    } catch (error) {
      for (const event of opened) plane.closeEvent(event);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#plane?.close();
  }

  #open(): NativePlane {
    if (this.#plane === undefined) {
      this.#plane = new NativePlane(this.#addon, () => '', { transports: ['cuda'], streams: 1 });
      this.#host = this.#plane.register(new Uint8Array(this.#addon.allocate(BYTES)), false).id;
    }
    return this.#plane;
  }

  #copy(plane: NativePlane, device: string): Descriptors {
    let copy = this.#copies.get(device);
    if (copy === undefined) {
      const list = new DescriptorList();
      list.push(plane.allocateDevice(device, BYTES), 0, this.#host, 0, BYTES);
      copy = list.descriptors();
      this.#copies.set(device, copy);
    }
    return copy;
  }
}

export class EngineEvents {
  readonly #plane: NativePlane;
  readonly #copy: Descriptors;
  readonly #events: readonly number[];

  constructor(plane: NativePlane, copy: Descriptors, events: readonly number[]) {
    this.#plane = plane;
    this.#copy = copy;
    this.#events = events;
  }

  get count(): number {
    return this.#events.length;
  }

  /** Resolves when what the engine last recorded there is over. Throws ERR_TIMEOUT, ERR_ABORTED, and what the driver says. */
  async over(index: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw errors.aborted(signal.reason);
    const gpu = { waitFor: [this.#events[index]] };
    const limits = { signal, timeoutMs: WAIT_MS };
    await this.#plane.submit('copy', 0, { descriptors: this.#copy, limits, verify: false, gpu }).done;
  }

  /** Waits that are under way keep what they wait for until they end. */
  close(): void {
    for (const event of this.#events) this.#plane.closeEvent(event);
  }
}
