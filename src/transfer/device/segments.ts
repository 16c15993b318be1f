/**
 * Memory of GPUs among the segments of a transfer whose own moves know host memory alone. The accelerator copies between them and
 * windows that both sides know (staging.ts). Numbers of their own range keep the two kinds apart; none is used twice.
 */
import { oneOf, options as optionsOf, string } from '../../core/check.js';
import type { Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { loadAddon, whyNoAddon } from '../../native/load.js';
import { DescriptorList } from '../descriptor-list.js';
import type { DeviceMemory } from '../engine/api.js';
import { checkDevice, keepInPlace } from '../engine/memory.js';
import { NativePlane } from '../engine/native-plane.js';
import { type Limits, shared } from '../limits.js';
import type { Devices, MoveReport, RegisterOptions } from '../transfer.js';
import { DeviceServing } from './serving.js';
import { type Carry, DeviceStaging, type DeviceTable } from './staging.js';
import { DeviceWindows, FIRST_DEVICE, LAST_DEVICE, type WindowMemory } from './windows.js';

export interface HostSegments {
  register(memory: Uint8Array, options: RegisterOptions): number;
  unregister(segment: number): Promise<void>;
}

interface Entry {
  readonly name: string;
  readonly length: number;
  readonly writable: boolean;
}

export class DeviceSegments implements Devices, DeviceTable {
  readonly serving: DeviceServing;
  readonly #host: HostSegments;
  readonly #staging: DeviceStaging;
  readonly #entries = new Map<number, Entry>();
  #opened: { plane: NativePlane; allocate(bytes: number): ArrayBuffer } | undefined;
  #windows: WindowMemory | undefined;

  constructor(host: HostSegments) {
    this.#host = host;
    this.#staging = new DeviceStaging(
      this,
      new DeviceWindows((bytes) => (this.#windows = this.#makeWindow(bytes, 'read'))),
    );
    this.serving = new DeviceServing({
      any: () => this.#entries.size > 0,
      near: (segment, writing) => this.#served(segment, writing),
      copy: (descriptors, limits) => this.copy(descriptors, limits),
      makeWindow: (bytes) => this.#makeWindow(bytes, 'read-write'),
      dropWindow: (window) => this.#dropWindow(window),
    });
  }

  /** @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED, ERR_OUT_OF_MEMORY as TransferEngine's registerDevice */
  register(memory: DeviceMemory, options?: RegisterOptions): number {
    const checked = checkDevice(memory);
    const { name, access = 'read-write' } = optionsOf('options', options);
    const writable = oneOf('options.access', access, ['read', 'read-write'] as const) === 'read-write';
    if (name !== undefined && (string('options.name', name) === '' || this.find(name))) {
      throw errors.invalidArgument('options.name', name, 'a name that no segment of this transfer has');
    }
    const id = FIRST_DEVICE + this.#open().plane.registerDevice(checked);
    if (id > LAST_DEVICE) throw errors.outOfMemory('segment numbers of GPUs', LAST_DEVICE - FIRST_DEVICE);
    this.#entries.set(id, { name: name ?? `segment-${id}`, length: checked.length, writable });
    return id;
  }

  /** Resolves when nothing touches the memory any more. */
  async unregister(segment: number): Promise<void> {
    this.#entries.delete(segment);
    await this.#opened?.plane.unregister(segment - FIRST_DEVICE);
  }

  /** As peers ask for it. */
  find(name: string): { id: number; length: number } | undefined {
    for (const [id, entry] of this.#entries) if (entry.name === name) return { id, length: entry.length };
    return undefined;
  }

  length(segment: number): number | undefined {
    return this.#entries.get(segment)?.length;
  }

  near(segment: number): number {
    return segment - FIRST_DEVICE;
  }

  touches(descriptors: Descriptors, side: 'source' | 'destination'): boolean {
    return this.#entries.size > 0 && this.#staging.touches(descriptors, side);
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
      const [source, destination] = [this.#entries.has(sourceSegment), this.#entries.has(destinationSegment)];
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

  async copy(descriptors: Descriptors, limits: Limits): Promise<MoveReport> {
    if (!this.#opened) throw errors.closed('memory of GPUs');
    return this.#opened.plane.submit('copy', 0, { descriptors, limits, verify: false }).done;
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    await this.serving.close();
    const [opened, windows] = [this.#opened, this.#windows];
    this.#opened = this.#windows = undefined;
    await opened?.plane.close();
    if (windows) await this.#host.unregister(windows.far);
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

  /** Throws ERR_SEGMENT where peers may not do that. */
  #served(segment: number, writing: boolean): number {
    const entry = this.#entries.get(segment);
    if (!entry) throw errors.segment('segment', segment, 'no such memory of a GPU is registered');
    if (writing && !entry.writable) throw errors.segment('segment', segment, 'peers may only read it');
    return this.near(segment);
  }

  #makeWindow(bytes: number, access: 'read' | 'read-write'): WindowMemory {
    const { plane, allocate } = this.#open();
    const memory = new Uint8Array(allocate(bytes));
    keepInPlace(memory);
    return { near: plane.register(memory, false).id, far: this.#host.register(memory, { access }) };
  }

  async #dropWindow({ near, far }: WindowMemory): Promise<void> {
    await this.#host.unregister(far);
    await this.#opened?.plane.unregister(near);
  }
}
