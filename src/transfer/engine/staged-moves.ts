/**
 * Reads and writes of an engine whose own side is memory of a GPU: by way of pinned host memory, whatever the peer and the
 * transport are. Copies within the engine reach GPUs by themselves.
 */
import { onAbort } from '../../pool/abort.js';
import { DeviceStaging } from '../device/staging.js';
import { DeviceWindows } from '../device/windows.js';
import { detached, type Move } from '../move-options.js';
import type { TransferBatch } from './api.js';
import type { DataPlane, Operation } from './plane.js';

export class StagedMoves {
  readonly #plane: DataPlane;
  readonly #lengths = new Map<number, number>();
  readonly #staging: DeviceStaging;

  constructor(plane: DataPlane) {
    this.#plane = plane;
    const windows = new DeviceWindows((bytes) => {
      // Peers are not told of it.
      const { id } = plane.allocate(bytes, { writable: false, hugePages: true });
      return { near: id, far: id };
    });
    this.#staging = new DeviceStaging(
      {
        length: (segment) => this.#lengths.get(segment),
        near: (segment) => segment,
        copy: (descriptors, limits) => plane.submit('copy', 0, { descriptors, limits, verify: false }).done,
      },
      windows,
    );
  }

  /** A segment of a GPU. */
  add(segment: number, length: number): void {
    this.#lengths.set(segment, length);
  }

  remove(segment: number): void {
    this.#lengths.delete(segment);
  }

  submit(operation: Operation, peer: number, move: Move): TransferBatch {
    const side = operation === 'read' ? 'destination' : 'source';
    const within = operation === 'copy' || this.#lengths.size === 0;
    if (within || !this.#staging.touches(move.descriptors, side)) return this.#plane.submit(operation, peer, move);
    // The caller may write his descriptors again.
    const { descriptors, limits, verify } = detached(move);
    const end = new AbortController();
    const { signal: given, timeoutMs } = limits;
    const forget = given && onAbort(given, () => end.abort(given.reason));
    const done = this.#staging.move(descriptors, side, { signal: end.signal, timeoutMs }, (host, left) => {
      return this.#plane.submit(operation, peer, { descriptors: host, limits: left, verify }).done;
    });
    return { done: done.finally(forget), cancel: () => end.abort() };
  }
}
