/**
 * The memory that a joined store lends to its cluster: allocated by the engine, so that any peer reaches it by its address,
 * and read and written in place where the bytes that a call wants lie in it.
 */
import { errors } from '../../core/errors.js';
import type { Replica, SegmentInfo, Uuid } from '../../master/api.js';
import type { TransferEngine } from '../../transfer/engine/engine.js';
import { callersMemory, type SegmentMemory } from '../memory.js';
import type { OwnSegment } from '../segments.js';
import { type Place, uuid } from '../session.js';

export interface LentSegment {
  readonly info: SegmentInfo;
  /** Its number in the engine. */
  readonly segment: number;
  readonly memory: SegmentMemory;
  /** It is being taken away. */
  removed?: Promise<void>;
}

export class LentSegments {
  readonly #engine: TransferEngine;
  readonly #hostId: string;
  readonly #protocol: string;
  readonly #byId = new Map<Uuid, LentSegment>();

  constructor(engine: TransferEngine, protocol: string, hostId: string) {
    this.#engine = engine;
    this.#protocol = protocol;
    this.#hostId = hostId;
  }

  get all(): LentSegment[] {
    return [...this.#byId.values()];
  }

  /** Memory that peers can reach from now on; the master is not told. @throws ERR_OUT_OF_MEMORY */
  async add({ name, length, given }: OwnSegment): Promise<LentSegment> {
    const { id, address, memory } = given ? await this.#engine.register(given) : await this.#engine.allocate(length);
    const endpoint = this.#engine.name;
    const info: SegmentInfo = {
      id: uuid(),
      name: name ?? endpoint,
      base: Number(address),
      length,
      endpoint,
      protocol: this.#protocol,
      hostId: this.#hostId,
    };
    const lent: LentSegment = { info, segment: id, memory: callersMemory(memory) };
    this.#byId.set(info.id, lent);
    return lent;
  }

  /** Peers do not reach it any more; resolves when none of their moves touches it. Idempotent. */
  remove(lent: LentSegment): Promise<void> {
    lent.memory.retired = true;
    this.#byId.delete(lent.info.id);
    return (lent.removed ??= this.#engine.unregister(lent.segment));
  }

  /** Bytes of a segment that is lent, by their address; undefined where none has all of them. */
  bytesAt(address: number, size: number): Uint8Array | undefined {
    for (const { info, memory } of this.#byId.values()) {
      const at = address - info.base;
      if (at >= 0 && at + size <= info.length) return memory.bytes.subarray(at, at + size);
    }
    return undefined;
  }

  /** The bytes of a copy that lies here. Throws ERR_SEGMENT. */
  place({ id, offset, size }: Replica): Place {
    for (const { info, memory } of this.#byId.values()) {
      const at = offset - info.base;
      if (at >= 0 && at + size <= info.length) return { replica: id, memory, offset: at };
    }
    throw errors.segment('replica', offset, 'lies in no segment that is lent');
  }
}
