/**
 * Moves of which one side is memory of GPUs and the other is whatever a transfer or a store reaches: bytes pass through windows
 * of pinned memory, scattered pieces of a GPU gathered by one kernel each, and while one window is on its way the next is
 * filled. What carries them sees host memory alone, and verifies them as it does any.
 *
 *     GPU ──copy──► window ──carry──► peer, object        (the GPU is the source)
 *     GPU ◄──copy── window ◄──carry── peer, object        (it is the destination)
 */
import type { Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { type Limits, shared } from '../limits.js';
import type { Side } from '../ranges.js';
import type { MoveReport } from '../transfer.js';
import { Gather } from './gather.js';
import { others, type Part, Records, touches } from './parts.js';
import { type DeviceWindows, WINDOW_BYTES, type Window } from './windows.js';

/** Moves what the descriptors say; they name windows where the caller's named GPUs. */
export type Carry = (descriptors: Descriptors, limits: Limits) => Promise<MoveReport | undefined>;

/** Segments that are memory of GPUs, by the numbers that descriptors have for them. */
export interface DeviceTable {
  /** Bytes of the segment; undefined where it is no GPU's. */
  length(segment: number): number | undefined;
  /** Its number in copies. */
  near(segment: number): number;
  /** Between GPUs and windows, by their numbers in copies. */
  copy(descriptors: Descriptors, limits: Limits): Promise<MoveReport>;
}

/** What is left of the limits; throws ERR_ABORTED. */
export function remaining(limits: Limits): () => Limits {
  const left = shared(limits);
  return () => {
    if (limits.signal?.aborted) throw errors.aborted(limits.signal.reason);
    return left();
  };
}

export class DeviceStaging {
  readonly #table: DeviceTable;
  readonly #windows: DeviceWindows;
  readonly #isDevice: (segment: number) => boolean;

  constructor(table: DeviceTable, windows: DeviceWindows) {
    this.#table = table;
    this.#windows = windows;
    this.#isDevice = (segment) => table.length(segment) !== undefined;
  }

  /** Whether a record has memory of a GPU on that side. */
  touches(descriptors: Descriptors, side: Side): boolean {
    return touches(descriptors, side, this.#isDevice);
  }

  /**
   * Moves all records, those of host memory as they are. Waits for everything under way before it throws what went wrong first.
   * @throws ERR_SEGMENT naming the record that leaves its segment; what copies and `carry` throw
   */
  async move(descriptors: Descriptors, side: Side, limits: Limits, carry: Carry): Promise<MoveReport> {
    const left = remaining(limits);
    const moves = new Gather();
    this.#check(descriptors, side);
    const host = others(descriptors, side, this.#isDevice);
    if (!host.isEmpty) moves.start(async () => carry(host.descriptors(), left()));
    const records = new Records(descriptors, side);
    try {
      while (!moves.failed) {
        const part = records.part(this.#isDevice, WINDOW_BYTES);
        if (part === undefined) break;
        const window = await this.#windows.take(left());
        moves.start(() => this.#run(part, side, window, left, carry), window.release);
      }
    } catch (error) {
      moves.fail(error);
    }
    return moves.ended();
  }

  async #run(
    part: Part,
    side: Side,
    window: Window,
    left: () => Limits,
    carry: Carry,
  ): Promise<MoveReport | undefined> {
    const { near, far, offset } = window;
    const copies = part.copies(side, near, offset, (segment) => this.#table.near(segment));
    const carried = part.carried(side, far, offset);
    if (side === 'source') {
      await this.#table.copy(copies, left());
      return carry(carried, left());
    }
    const moved = await carry(carried, left());
    await this.#table.copy(copies, left());
    return moved;
  }

  /** None is moved where one is wrong. */
  #check(descriptors: Descriptors, side: Side): void {
    const records = new Records(descriptors, side);
    for (let index = 0; records.next(); index++) {
      const { device, at, length } = records;
      const room = this.#table.length(device);
      if (room === undefined || at + length <= room) continue;
      throw errors.segment(`descriptors[${index}].${side}Offset`, at, `${length} bytes leave the segment's ${room}`);
    }
  }
}
