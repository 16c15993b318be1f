/**
 * What every transfer has whatever carries its bytes: registered segments, services, defaults, and copies within its own
 * memory. Peers of a transfer work on its `TransferCore`.
 */
import { randomBytes } from 'node:crypto';
import type { Descriptors } from '../core/descriptors.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { copyRanges } from './copy.js';
import { type DeviceOwner, moveRemote, reachesDevices } from './device/remote.js';
import { DeviceSegments } from './device/segments.js';
import { DEVICES } from './device/serving.js';
import type { DeviceMemory } from './engine/api.js';
import { isDeviceMemory } from './engine/memory.js';
import { detached, type Move, type MoveDefaultOptions, MoveDefaults } from './move-options.js';
import { Ranges } from './ranges.js';
import { SegmentTable } from './segments.js';
import { Services } from './services.js';
import type {
  CallLimits,
  MoveOptions,
  MoveReport,
  Peer,
  RegisterOptions,
  RequestHandler,
  Transfer,
} from './transfer.js';

export interface TransferOptions extends MoveDefaultOptions {}

export class TransferCore extends MoveDefaults {
  readonly generation = randomBytes(8).toString('hex');
  readonly segments = new SegmentTable();
  readonly services = new Services();
  /** Set by the transfer, which registers their windows. */
  devices!: DeviceSegments;

  override move(descriptors: Descriptors, options: MoveOptions | undefined): Move {
    const move = super.move(descriptors, options);
    if (move.gpu !== undefined) throw errors.notSupported('options.gpu', 'copies of a TransferEngine are ordered so');
    return detached(move);
  }

  /** A segment that peers ask for by its name. */
  find(name: string): { id: number; length: number } | undefined {
    return this.segments.find(name) ?? this.devices.find(name);
  }

  /** A move with a peer, by way of host memory what is of GPUs, ours or the peer's, and the rest as it is. */
  moved(
    kind: 'read' | 'write',
    move: Move,
    peer: DeviceOwner,
    carry: (move: Move) => Promise<MoveReport>,
  ): Promise<MoveReport> {
    const side = kind === 'read' ? 'destination' : 'source';
    const reach = (part: Move) => (reachesDevices(kind, part) ? moveRemote(peer, kind, part, carry) : carry(part));
    const { descriptors, limits } = move;
    if (!this.devices.touches(descriptors, side)) return reach(move);
    return this.devices.stage(descriptors, side, limits, (host, left) =>
      reach({ ...move, descriptors: host, limits: left }),
    );
  }
}

export abstract class TransferBase implements Transfer {
  abstract readonly address: string;
  /** Copies of `copy` under way, by how to end them. */
  readonly #copies = new Set<(error: MooncakeError) => void>();
  #closing?: Promise<void>;

  constructor(protected readonly core: TransferCore) {
    core.devices = new DeviceSegments({
      register: (memory, options) => this.register(memory, options),
      unregister: (segment) => this.unregister(segment),
    });
    core.services.serveOwn(DEVICES, (message, context) => core.devices.serving.answer(message, context));
  }

  get generation(): string {
    return this.core.generation;
  }

  protected checkOpen(): void {
    if (this.#closing) throw this.closedError();
  }

  protected closedError(): MooncakeError {
    return errors.closed(`transfer ${this.address}`);
  }

  get devices(): DeviceSegments {
    return this.core.devices;
  }

  register(memory: Uint8Array | DeviceMemory, options?: RegisterOptions): number {
    this.checkOpen();
    if (isDeviceMemory(memory)) return this.core.devices.register(memory, options);
    return this.core.segments.register(memory, options);
  }

  unregister(segment: number): Promise<void> {
    if (this.core.devices.length(segment) !== undefined) return this.core.devices.unregister(segment);
    return this.core.segments.unregister(segment);
  }

  memory(segment: number): Uint8Array {
    return this.core.segments.get(segment, 'segment').memory;
  }

  async copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    this.checkOpen();
    const move = this.core.move(descriptors, options);
    const { devices } = this.core;
    if (!devices.touches(descriptors, 'source') && !devices.touches(descriptors, 'destination'))
      return this.#copy(move);
    return devices.copyWithin(move.descriptors, move.limits, (host, limits) =>
      this.#copy({ ...move, descriptors: host, limits }),
    );
  }

  #copy(move: Move): Promise<MoveReport> {
    const source = new Ranges(move.descriptors, 'source', this.core.segments);
    const destination = new Ranges(move.descriptors, 'destination', this.core.segments);
    let end!: (error: MooncakeError) => void;
    return copyRanges(move.descriptors, source, destination, {
      ...move,
      onStart: (how) => this.#copies.add((end = how)),
      onEnd: () => this.#copies.delete(end),
    });
  }

  serve(service: string, handler: RequestHandler): () => void {
    this.checkOpen();
    return this.core.services.serve(service, handler);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    for (const end of [...this.#copies]) end(this.closedError());
    await this.disconnect();
    await this.core.devices.close();
  }

  abstract connect(address: string, limits?: CallLimits): Promise<Peer>;

  /** Ends all peers with ERR_CLOSED and stops listening. */
  protected abstract disconnect(): Promise<void>;
}
