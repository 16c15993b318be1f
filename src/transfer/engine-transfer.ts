/**
 * A transfer over a TransferEngine, for stores that join a Mooncake cluster: peers are engines by their Mooncake names, stock
 * ones among them, and their memory is named by address (`place`). What is registered here serves the moves that this side
 * begins; peers are not told of it. Mooncake's wire has no requests, so services are refused.
 */
import { string } from '../core/check.js';
import type { Descriptors } from '../core/descriptors.js';
import { errors, type MooncakeError } from '../core/errors.js';
import { EngineDevices } from './device/engine-devices.js';
import type { DeviceMemory, EnginePeer, TransferBatch } from './engine/api.js';
import type { TransferEngine } from './engine/engine.js';
import { checkMemory, isDeviceMemory } from './engine/memory.js';
import type {
  CallLimits,
  MoveOptions,
  MoveReport,
  Peer,
  RegisterOptions,
  RemoteSegment,
  RequestHandler,
  Transfer,
} from './transfer.js';

const NO_REQUESTS = "Mooncake's wire has no requests between stores; TcpTransfer has";

export class EngineTransfer implements Transfer {
  readonly address: string;
  readonly engine: TransferEngine;
  readonly devices: EngineDevices;
  readonly #memories = new Map<number, Uint8Array>();
  readonly #peers = new Map<EnginePeer, EngineTransferPeer>();

  /** The engine is the transfer's from now on: `close` closes it. */
  constructor(engine: TransferEngine) {
    this.engine = engine;
    this.devices = new EngineDevices(engine, (memory) => this.borrow(memory));
    this.address = engine.name;
  }

  get generation(): string {
    return this.engine.generation;
  }

  /** `options` say how peers may use the memory: here they do not. Views of a WebAssembly.Memory are refused. */
  register(memory: Uint8Array | DeviceMemory, _options?: RegisterOptions): number {
    if (isDeviceMemory(memory)) return this.devices.register(memory);
    return this.#register(checkMemory(memory) as Uint8Array, false);
  }

  /**
   * Registers memory that nobody but the caller knows, or that he copies from and to within one call: its buffer is not
   * marked as one that has to stay in this thread.
   */
  borrow(memory: Uint8Array): number {
    return this.#register(memory, true);
  }

  #register(memory: Uint8Array, movable: boolean): number {
    const id = this.engine.registerUnannounced(memory, movable);
    this.#memories.set(id, memory);
    return id;
  }

  async unregister(segment: number): Promise<void> {
    if (this.devices.length(segment) !== undefined) return this.devices.unregister(segment);
    this.memory(segment);
    this.#memories.delete(segment);
    await this.engine.unregister(segment);
  }

  memory(segment: number): Uint8Array {
    const memory = this.#memories.get(segment);
    if (!memory) throw errors.segment('segment', segment, 'no such segment is registered');
    return memory;
  }

  /** @throws ERR_PEER where no engine has the name */
  async connect(address: string, limits?: CallLimits): Promise<EngineTransferPeer> {
    const opened = await this.engine.open(string('address', address), limits);
    let peer = this.#peers.get(opened);
    if (!peer) {
      peer = new EngineTransferPeer(this.engine, opened, () => this.#peers.delete(opened));
      this.#peers.set(opened, peer);
    }
    return peer;
  }

  copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.engine.copy(descriptors, options);
  }

  serve(service: string, _handler: RequestHandler): never {
    throw errors.notSupported(`serving ${string('service', service)}`, NO_REQUESTS);
  }

  async close(): Promise<void> {
    await this.engine.close();
    for (const peer of [...this.#peers.values()]) peer.ended(errors.closed(`transfer ${this.address}`));
  }
}

export class EngineTransferPeer implements Peer {
  readonly address: string;
  readonly closed: Promise<MooncakeError>;
  readonly #engine: TransferEngine;
  readonly #peer: EnginePeer;
  readonly #forget: () => void;
  #resolveClosed!: (reason: MooncakeError) => void;

  constructor(engine: TransferEngine, peer: EnginePeer, forget: () => void) {
    this.address = peer.name;
    this.#engine = engine;
    this.#peer = peer;
    this.#forget = forget;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Sixteen zeros for engines that say none. */
  get generation(): string {
    return this.#peer.generation ?? '0'.repeat(16);
  }

  /** Where an address of the peer's lies, as it said when it was last asked. Throws ERR_SEGMENT. */
  place(address: bigint, length: number): { segment: number; offset: number } {
    return this.#peer.at(address, length);
  }

  /** Asks the peer again what memory it has, and which run it is. */
  refresh(limits?: CallLimits): Promise<void> {
    return this.#peer.refresh(limits);
  }

  async segment(name: string, limits?: CallLimits): Promise<RemoteSegment> {
    const named = () => this.#peer.segments.find((segment) => segment.name === name);
    if (!named()) await this.#peer.refresh(limits);
    const found = named();
    if (!found) throw errors.segment('name', name, `${this.address} has no segment of that name`);
    return { id: found.id, name, length: found.length };
  }

  /** A read or a write that can be cancelled. */
  submit(op: 'read' | 'write', descriptors: Descriptors, options?: MoveOptions): TransferBatch {
    return this.#engine.submit(op, this.#peer, descriptors, options);
  }

  read(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#engine.read(this.#peer, descriptors, options);
  }

  write(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#engine.write(this.#peer, descriptors, options);
  }

  async call(service: string): Promise<never> {
    throw errors.notSupported(`a request to ${string('service', service)}`, NO_REQUESTS);
  }

  async close(): Promise<void> {
    this.#peer.close();
    this.ended(errors.closed(`peer ${this.address}`));
  }

  ended(reason: MooncakeError): void {
    this.#forget();
    this.#resolveClosed(reason);
  }
}
