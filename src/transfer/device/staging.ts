/**
 * Moves of which one side is memory of GPUs and the other is whatever a transfer or a store reaches: bytes pass through windows
 * of pinned memory, scattered pieces of a GPU gathered by one kernel each, and while one window is on its way the next is
 * filled. What carries them sees host memory alone, and verifies them as it does any.
 *
 *     GPU ──copy──► window ──carry──► peer, object        (the GPU is the source)
 *     GPU ◄──copy── window ◄──carry── peer, object        (it is the destination)
 */
import { DESCRIPTOR_BYTES, type Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { DescriptorList } from '../descriptor-list.js';
import { type Limits, shared } from '../limits.js';
import type { Side } from '../ranges.js';
import type { MoveReport } from '../transfer.js';
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

/** One window's part of a move. */
interface Part {
  copies: DescriptorList;
  carried: DescriptorList;
  bytes: number;
}

export class DeviceStaging {
  readonly #table: DeviceTable;
  readonly #windows: DeviceWindows;

  constructor(table: DeviceTable, windows: DeviceWindows) {
    this.#table = table;
    this.#windows = windows;
  }

  /** Whether a record has memory of a GPU on that side. */
  touches(descriptors: Descriptors, side: Side): boolean {
    const records = new Records(descriptors, side);
    for (let last = -1; records.next(); last = records.device) {
      if (records.device !== last && this.#table.length(records.device) !== undefined) return true;
    }
    return false;
  }

  /**
   * Moves all records, those of host memory as they are. Waits for everything under way before it throws what went wrong first.
   * @throws ERR_SEGMENT naming the record that leaves its segment; what copies and `carry` throw
   */
  async move(descriptors: Descriptors, side: Side, limits: Limits, carry: Carry): Promise<MoveReport> {
    const started = performance.now();
    const rest = shared(limits);
    const left = () => {
      if (limits.signal?.aborted) throw errors.aborted(limits.signal.reason);
      return rest();
    };
    const report = { bytes: 0, verifiedBytes: 0 };
    const failures: unknown[] = [];
    const running = new Set<Promise<void>>();
    const start = (work: () => Promise<MoveReport | undefined>, ended = () => {}) => {
      const task = work()
        .then((moved) => {
          report.bytes += moved?.bytes ?? 0;
          report.verifiedBytes += moved?.verifiedBytes ?? 0;
        })
        .catch((error) => void failures.push(error))
        .finally(() => {
          ended();
          running.delete(task);
        });
      running.add(task);
    };
    const host = this.#checked(descriptors, side);
    if (!host.isEmpty) start(async () => carry(host.descriptors(), left()));
    const records = new Records(descriptors, side);
    try {
      while (failures.length === 0 && this.#skipHost(records)) {
        const window = await this.#windows.take(left());
        const part = this.#fill(records, side, window);
        start(() => this.#run(part, side, left, carry), window.release);
      }
    } catch (error) {
      failures.push(error);
    }
    await Promise.all(running);
    if (failures.length > 0) throw failures[0];
    return { ...report, milliseconds: performance.now() - started };
  }

  async #run({ copies, carried }: Part, side: Side, left: () => Limits, carry: Carry): Promise<MoveReport | undefined> {
    if (side === 'destination') {
      const moved = await carry(carried.descriptors(), left());
      await this.#table.copy(copies.descriptors(), left());
      return moved;
    }
    await this.#table.copy(copies.descriptors(), left());
    return carry(carried.descriptors(), left());
  }

  /** Checks the records of GPUs, so that none is moved where one is wrong; the others, as they are. */
  #checked(descriptors: Descriptors, side: Side): DescriptorList {
    const host = new DescriptorList();
    const records = new Records(descriptors, side);
    for (let index = 0; records.next(); index++) {
      const { device, at, other, otherAt, length } = records;
      const room = this.#table.length(device);
      if (room === undefined) {
        if (side === 'source') host.push(device, at, other, otherAt, length);
        else host.push(other, otherAt, device, at, length);
      } else if (!(at + length <= room)) {
        throw errors.segment(`descriptors[${index}].${side}Offset`, at, `${length} bytes leave the segment's ${room}`);
      }
    }
    return host;
  }

  /** Stands at bytes of a GPU that were not moved yet; false at the end. */
  #skipHost(records: Records): boolean {
    while (records.length === 0 || this.#table.length(records.device) === undefined) {
      if (!records.next()) return false;
    }
    return true;
  }

  /** As many bytes as a window takes. */
  #fill(records: Records, side: Side, { near, far, offset }: Window): Part {
    const part = { copies: new DescriptorList(), carried: new DescriptorList(), bytes: 0 };
    do {
      const length = Math.min(records.length, WINDOW_BYTES - part.bytes);
      const place = offset + part.bytes;
      const device = this.#table.near(records.device);
      if (side === 'source') {
        part.copies.push(device, records.at, near, place, length);
        part.carried.push(far, place, records.other, records.otherAt, length);
      } else {
        part.carried.push(records.other, records.otherAt, far, place, length);
        part.copies.push(near, place, device, records.at, length);
      }
      records.take(length);
      part.bytes += length;
    } while (part.bytes < WINDOW_BYTES && this.#skipHost(records));
    return part;
  }
}

/** Walks descriptors; `device` and `at` are of the side that GPUs may be on. */
class Records {
  device = 0;
  at = 0;
  other = 0;
  otherAt = 0;
  /** Bytes that are left of the record. */
  length = 0;
  readonly #view: DataView;
  readonly #side: number;
  #next = 0;

  constructor({ records }: Descriptors, side: Side) {
    this.#view = new DataView(records.buffer, records.byteOffset, records.byteLength);
    this.#side = side === 'source' ? 0 : 1;
  }

  next(): boolean {
    const record = this.#next;
    if (record === this.#view.byteLength) {
      this.length = 0;
      return false;
    }
    const own = this.#side;
    this.device = this.#view.getUint32(record + 4 * own, true);
    this.other = this.#view.getUint32(record + 4 * (1 - own), true);
    this.at = this.#u64(record + 8 + 8 * own);
    this.otherAt = this.#u64(record + 8 + 8 * (1 - own));
    this.length = this.#u64(record + 24);
    this.#next += DESCRIPTOR_BYTES;
    return true;
  }

  take(length: number): void {
    this.at += length;
    this.otherAt += length;
    this.length -= length;
  }

  #u64(at: number): number {
    return this.#view.getUint32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true);
  }
}
