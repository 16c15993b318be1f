/**
 * Registered memory through which bytes pass between callers' arrays and files, in slots that copies take turns with. It
 * is what bounds the memory of a disk tier.
 */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';
import type { TransferEngineApi } from '../../transfer/engine/api.js';
import { Turns } from '../../transfer/turns.js';

/** What a disk tier needs of a transfer engine. */
export type FileEngine = Pick<TransferEngineApi, 'allocate' | 'openFile' | 'copy' | 'unregister'>;

/** Bytes of a slot. */
export const SLOT = 2 ** 20;

export interface Slot {
  /** Where it begins in the staging memory. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class Slots {
  readonly #engine: FileEngine;
  readonly #segment: number;
  readonly #turns: Turns<Slot>;

  private constructor(engine: FileEngine, segment: number, memory: Uint8Array) {
    this.#engine = engine;
    this.#segment = segment;
    const slots = Array.from({ length: memory.length / SLOT }, (_, i) => ({
      offset: i * SLOT,
      bytes: memory.subarray(i * SLOT, (i + 1) * SLOT),
    }));
    this.#turns = new Turns(slots);
  }

  static async allocate(engine: FileEngine, slots: number): Promise<Slots> {
    const { id, memory } = await engine.allocate(slots * SLOT, { hugePages: false, access: 'read' });
    return new Slots(engine, id, memory);
  }

  /** Runs with a slot of its own. Others wait for as long as their copies have deadlines. */
  async use<T>(run: (slot: Slot) => Promise<T>): Promise<T> {
    const slot = this.#turns.take() ?? (await this.#turns.wait().given);
    try {
      return await run(slot);
    } finally {
      this.#turns.give(slot);
    }
  }

  /** Fills the beginning of a slot from a file. */
  async read(file: number, from: number, slot: Slot, length: number): Promise<void> {
    await this.#engine.copy(oneDescriptor(file, this.#segment, from, slot.offset, length), { verify: 'off' });
  }

  /** Writes the beginning of a slot to a file. */
  async write(slot: Slot, length: number, file: number, to: number): Promise<void> {
    await this.#engine.copy(oneDescriptor(this.#segment, file, slot.offset, to, length), { verify: 'off' });
  }

  release(): Promise<void> {
    return this.#engine.unregister(this.#segment);
  }
}

/** A single copy: offsets and length in bytes. */
export function oneDescriptor(
  source: number,
  destination: number,
  from: number,
  to: number,
  length: number,
): Descriptors {
  const bytes = allocateDescriptors(1);
  const view = new DataView(bytes.buffer, DESCRIPTOR_BYTES);
  view.setUint32(0, source, true);
  view.setUint32(4, destination, true);
  view.setBigUint64(8, BigInt(from), true);
  view.setBigUint64(16, BigInt(to), true);
  view.setBigUint64(24, BigInt(length), true);
  return new Descriptors(bytes);
}
