/**
 * Memory of GPUs among the segments of a transfer whose own moves know host memory alone. The accelerator copies between them and
 * windows that both sides know (staging.ts). Numbers of their own range keep the two kinds apart; none is used twice.
 */
import type { Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { loadAddon, whyNoAddon } from '../../native/load.js';
import { DescriptorList } from '../descriptor-list.js';
import type { DeviceMemory } from '../engine/api.js';
import { checkDevice, keepInPlace } from '../engine/memory.js';
import { NativePlane } from '../engine/native-plane.js';
import { type Limits, shared } from '../limits.js';
import type { Devices, MoveReport } from '../transfer.js';
import { type Carry, DeviceStaging, type DeviceTable } from './staging.js';
import { DeviceWindows } from './windows.js';

/** Numbers of GPUs' segments: from here to those of the store's objects (src/store/api.ts). */
export const FIRST_DEVICE = 0xf000_0000;
const LAST_DEVICE = 0xfffe_ffff;

export interface HostSegments {
  register(memory: Uint8Array): number;
  unregister(segment: number): Promise<void>;
}

export class DeviceSegments implements Devices, DeviceTable {
  readonly #host: HostSegments;
  readonly #staging: DeviceStaging;
  readonly #lengths = new Map<number, number>();
  #opened: { plane: NativePlane; allocate(bytes: number): ArrayBuffer } | undefined;
  #window: number | undefined;

  constructor(host: HostSegments) {
    this.#host = host;
    this.#staging = new DeviceStaging(this, new DeviceWindows((bytes) => this.#makeWindows(bytes)));
  }

  /** @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED, ERR_OUT_OF_MEMORY as TransferEngine's registerDevice */
  register(memory: DeviceMemory): number {
    const checked = checkDevice(memory);
    const id = FIRST_DEVICE + this.#open().plane.registerDevice(checked);
    if (id > LAST_DEVICE) throw errors.outOfMemory('segment numbers of GPUs', LAST_DEVICE - FIRST_DEVICE);
    this.#lengths.set(id, checked.length);
    return id;
  }

  /** Resolves when nothing touches the memory any more. */
  async unregister(segment: number): Promise<void> {
    this.#lengths.delete(segment);
    await this.#open().plane.unregister(segment - FIRST_DEVICE);
  }

  length(segment: number): number | undefined {
    return this.#lengths.get(segment);
  }

  near(segment: number): number {
    return segment - FIRST_DEVICE;
  }

  touches(descriptors: Descriptors, side: 'source' | 'destination'): boolean {
    return this.#lengths.size > 0 && this.#staging.touches(descriptors, side);
  }

  stage(descriptors: Descriptors, side: 'source' | 'destination', limits: Limits, carry: Carry): Promise<MoveReport> {
    return this.#staging.move(descriptors, side, limits, carry);
  }

  /** Copies within a transfer: `carry` those between host memories. */
  async copyWithin(descriptors: Descriptors, limits: Limits, carry: Carry): Promise<MoveReport> {
    const left = shared(limits);
    const started = performance.now();
    const [within, out, into] = [new DescriptorList(), new DescriptorList(), new DescriptorList()];
    for (const { sourceSegment, destinationSegment, sourceOffset, destinationOffset, length } of descriptors) {
      const [source, destination] = [this.#lengths.has(sourceSegment), this.#lengths.has(destinationSegment)];
      if (source && destination) {
        within.push(this.near(sourceSegment), sourceOffset, this.near(destinationSegment), destinationOffset, length);
      } else {
        const list = source ? out : into;
        list.push(sourceSegment, sourceOffset, destinationSegment, destinationOffset, length);
      }
    }
    const reports: MoveReport[] = [];
    if (!within.isEmpty) reports.push(await this.copy(within.descriptors(), left()));
    if (!out.isEmpty) reports.push(await this.stage(out.descriptors(), 'source', left(), carry));
    if (!into.isEmpty) reports.push(await this.stage(into.descriptors(), 'destination', left(), carry));
    const sum = (field: 'bytes' | 'verifiedBytes') => reports.reduce((total, report) => total + report[field], 0);
    return { bytes: sum('bytes'), verifiedBytes: sum('verifiedBytes'), milliseconds: performance.now() - started };
  }

  copy(descriptors: Descriptors, limits: Limits): Promise<MoveReport> {
    return this.#open().plane.submit('copy', 0, { descriptors, limits, verify: false }).done;
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    this.#lengths.clear();
    await opened?.plane.close();
    if (this.#window !== undefined) await this.#host.unregister(this.#window);
    this.#window = undefined;
  }

  #open() {
    if (this.#opened) return this.#opened;
    const loaded = loadAddon();
    const { addon } = loaded;
    if (!addon) throw errors.notSupported('memory of a GPU', `the accelerator is not there: ${whyNoAddon(loaded)}`);
    // It serves nobody: its copies are within this process.
    const plane = new NativePlane(addon, () => '', { transports: ['cuda'], streams: 1 });
    this.#opened = { plane, allocate: (bytes) => addon.allocate(bytes) };
    return this.#opened;
  }

  #makeWindows(bytes: number) {
    const { plane, allocate } = this.#open();
    const memory = new Uint8Array(allocate(bytes));
    keepInPlace(memory);
    this.#window = this.#host.register(memory);
    return { near: plane.register(memory, false).id, far: this.#window };
  }
}
