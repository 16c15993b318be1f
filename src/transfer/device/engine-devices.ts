/** Memory of GPUs among the segments of a transfer over an engine, which copies it and moves it to and from peers by itself. */
import type { Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { loadAddon } from '../../native/load.js';
import type { DeviceMemory } from '../engine/api.js';
import type { TransferEngine } from '../engine/engine.js';
import type { Limits } from '../limits.js';
import type { Devices, MoveReport } from '../transfer.js';
import { type Carry, DeviceStaging } from './staging.js';
import { DeviceWindows } from './windows.js';

export class EngineDevices implements Devices {
  readonly #engine: TransferEngine;
  readonly #lengths = new Map<number, number>();
  readonly #staging: DeviceStaging;

  /** `borrow` registers windows with the transfer, so that it finds their memory. */
  constructor(engine: TransferEngine, borrow: (memory: Uint8Array) => number) {
    this.#engine = engine;
    const windows = new DeviceWindows((bytes) => {
      const { addon } = loadAddon();
      if (!addon) throw errors.notSupported('memory of a GPU', 'the accelerator moves it');
      const id = borrow(new Uint8Array(addon.allocate(bytes)));
      return { near: id, far: id };
    });
    this.#staging = new DeviceStaging(
      {
        length: (segment) => this.#lengths.get(segment),
        near: (segment) => segment,
        copy: (descriptors, limits) => engine.copy(descriptors, { ...limits, verify: 'off' }),
      },
      windows,
    );
  }

  register(memory: DeviceMemory): number {
    const { id, length } = this.#engine.registerDeviceUnannounced(memory);
    this.#lengths.set(id, length);
    return id;
  }

  async unregister(segment: number): Promise<void> {
    this.#lengths.delete(segment);
    await this.#engine.unregister(segment);
  }

  length(segment: number): number | undefined {
    return this.#lengths.get(segment);
  }

  touches(descriptors: Descriptors, side: 'source' | 'destination'): boolean {
    return this.#lengths.size > 0 && this.#staging.touches(descriptors, side);
  }

  stage(descriptors: Descriptors, side: 'source' | 'destination', limits: Limits, carry: Carry): Promise<MoveReport> {
    return this.#staging.move(descriptors, side, limits, carry);
  }
}
