/**
 * The data plane in TypeScript: Mooncake's data stream over TCP, both ways, and copies within the process. It announces no
 * endpoints of our own, so that every peer reaches it, and is reached, as a stock engine is; checksums do not travel on that
 * stream, so what it moves between processes counts as not verified.
 */
import { randomBytes } from 'node:crypto';
import { errors, type MooncakeError } from '../../core/errors.js';
import { copyRanges } from '../copy.js';
import { type Limits, watch } from '../limits.js';
import { detached, type Move } from '../move-options.js';
import { Ranges } from '../ranges.js';
import type { MoveReport } from '../transfer.js';
import type { DeviceMemory, DmaBuf, ForeignMemory, TransferBatch } from './api.js';
import type {
  AnswerHandshake,
  DataPlane,
  ListenPlace,
  Operation,
  PeerPlaces,
  PlaneListener,
  PlaneMemory,
  PlaneStatistics,
  RemoteRange,
} from './plane.js';
import { PortableFiles } from './portable-files.js';
import { PortableListener } from './portable-listener.js';
import { PortableMemory } from './portable-memory.js';
import { PortablePeer } from './portable-peer.js';

const NEEDS_ACCELERATOR = 'it needs the accelerator (mooncake-ts doctor says why it is not there)';

export class PortablePlane implements DataPlane {
  readonly generation = randomBytes(8).toString('hex');
  readonly accelerated = false;
  readonly #memory = new PortableMemory();
  readonly #files = new PortableFiles(this.#memory.segments);
  readonly #answer: AnswerHandshake;
  readonly #streams: number;
  readonly #peers = new Map<number, PortablePeer>();
  /** Copies under way, by how to end them. */
  readonly #copies = new Set<(error: MooncakeError) => void>();
  readonly #batches = { active: 0, completed: 0, failed: 0 };
  #listener?: PortableListener;
  #nextPeer = 1;

  constructor(answer: AnswerHandshake, streams: number) {
    this.#answer = answer;
    this.#streams = streams;
  }

  async listen({ host, port }: ListenPlace): Promise<PlaneListener> {
    this.#listener = await PortableListener.listen(host, port, this.#memory, this.#answer);
    return { port: this.#listener.port, endpoints: [], devices: [] };
  }

  allocate(length: number, { writable }: { writable: boolean }): PlaneMemory {
    let memory: Uint8Array;
    try {
      memory = new Uint8Array(length);
    } catch {
      throw errors.outOfMemory('a segment', length);
    }
    return this.register(memory, writable);
  }

  register(memory: Uint8Array | ForeignMemory, writable: boolean): PlaneMemory {
    if (!(memory instanceof Uint8Array)) {
      throw errors.invalidArgument('memory', memory, 'a Uint8Array: addresses need the accelerator');
    }
    const { id, address } = this.#memory.add(memory, writable);
    return { id, memory, address: BigInt(address) };
  }

  registerDmaBuf({ fd }: DmaBuf): never {
    throw errors.notSupported(`the dma-buf ${fd}`, NEEDS_ACCELERATOR);
  }

  async expose(): Promise<undefined> {}

  openFile(path: string, length: number | undefined, writable: boolean): Promise<{ id: number; length: number }> {
    return this.#files.open(path, length, writable);
  }

  registerDevice({ device }: DeviceMemory): never {
    throw errors.notSupported(`memory of ${device}`, NEEDS_ACCELERATOR);
  }

  allocateDevice(device: string): never {
    throw errors.notSupported(`memory of ${device}`, NEEDS_ACCELERATOR);
  }

  exportDevice(segment: number): never {
    throw errors.notSupported(`exporting segment ${segment}`, NEEDS_ACCELERATOR);
  }

  exportDescriptor(segment: number): never {
    throw errors.notSupported(`exporting segment ${segment}`, NEEDS_ACCELERATOR);
  }

  createEvent(device: string): never {
    throw errors.notSupported(`events of ${device}`, NEEDS_ACCELERATOR);
  }

  openEvent(device: string): never {
    throw errors.notSupported(`events of ${device}`, NEEDS_ACCELERATOR);
  }

  exportEvent(event: number): never {
    throw errors.notSupported(`event ${event}`, NEEDS_ACCELERATOR);
  }

  closeEvent(event: number): never {
    throw errors.notSupported(`event ${event}`, NEEDS_ACCELERATOR);
  }

  unregister(segment: number): Promise<void> {
    return this.#files.has(segment) ? this.#files.remove(segment) : this.#memory.remove(segment);
  }

  openPeer(places: PeerPlaces): number {
    const peer = new PortablePeer(places, this.#memory.segments, this.#streams);
    this.#peers.set(this.#nextPeer, peer);
    return this.#nextPeer++;
  }

  setSegments(peer: number, segments: RemoteRange[]): void {
    this.#peers.get(peer)!.setSegments(segments);
  }

  closePeer(peer: number): void {
    this.#peers.get(peer)?.close(errors.closed('the peer'));
    this.#peers.delete(peer);
  }

  submit(operation: Operation, peer: number, given: Move): TransferBatch {
    const move = detached(given);
    const ended = (error?: unknown) => {
      this.#batches.active--;
      this.#batches[error === undefined ? 'completed' : 'failed']++;
    };
    const batch =
      operation === 'copy'
        ? this.#copy(move, ended)
        : this.#peers.get(peer)!.submit(operation === 'write', move, ended);
    this.#batches.active++;
    return batch;
  }

  #copy(move: Move, ended: (error?: unknown) => void): TransferBatch {
    let end!: (error: MooncakeError) => void;
    const start = (how: typeof end) => this.#copies.add((end = how));
    const work = this.#files.touches(move.descriptors) ? this.#copyFiles(move, start) : this.#copyMemory(move, start);
    const done = work.finally(() => this.#copies.delete(end));
    done.then(() => ended(), ended);
    return { done, cancel: () => end(errors.aborted()) };
  }

  #copyMemory(move: Move, onStart: (end: (error: MooncakeError) => void) => void): Promise<MoveReport> {
    const source = new Ranges(move.descriptors, 'source', this.#memory.segments);
    const destination = new Ranges(move.descriptors, 'destination', this.#memory.segments);
    return copyRanges(move.descriptors, source, destination, { ...move, onStart });
  }

  #copyFiles(move: Move, onStart: (end: (error: MooncakeError) => void) => void): Promise<MoveReport> {
    const controller = new AbortController();
    const end = (error: MooncakeError) => controller.abort(error);
    onStart(end);
    const stop = watch('the copy', move.limits as Limits, end);
    return this.#files.copy(move.descriptors, controller.signal).finally(stop);
  }

  statistics(): PlaneStatistics {
    return {
      links: [...this.#peers.values()].map((peer) => peer.statistics),
      transports: [
        { name: 'local', usable: true, detail: 'TypeScript' },
        { name: 'tcp', usable: true, detail: "TypeScript, Mooncake's data stream" },
        { name: 'file', usable: true, detail: 'TypeScript' },
        { name: 'shm', usable: false, detail: 'needs the accelerator' },
      ],
      batches: { ...this.#batches },
    };
  }

  async close(): Promise<void> {
    const reason = errors.closed('the transfer engine');
    for (const end of [...this.#copies]) end(reason);
    for (const peer of this.#peers.values()) peer.close(reason);
    this.#peers.clear();
    await this.#listener?.close();
    await this.#files.close();
  }
}
