/** The data plane of the accelerator: its engine object, with promises for its completions and MooncakeErrors for its codes. */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';
import { errors, type MooncakeError } from '../../core/errors.js';
import {
  type Addon,
  type Completion,
  type Endpoint,
  NATIVE_CODES,
  type NativeEngine,
  OP,
  type Settings,
} from '../../native/addon.js';
import { onAbort } from '../../pool/abort.js';
import type { SegmentKeys } from '../metadata/descriptor.js';
import { HANDSHAKE } from '../metadata/handshake.js';
import { formatName } from '../metadata/name.js';
import type { Move } from '../move-options.js';
import type { MoveReport } from '../transfer.js';
import type { DescriptorKind, DeviceDescriptor, DeviceMemory, DmaBuf, ForeignMemory, TransferBatch } from './api.js';
import { keepInPlace } from './memory.js';
import { attempt, failure, fromNative } from './native-errors.js';
import { type CarryConnection, Nics, stockEndpoint } from './nics.js';
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

export interface NativePlaneOptions {
  /** Names of the transports to use; undefined: all that there are. */
  transports?: readonly string[];
  streams: number;
  spinUs?: number;
  gpuShare?: number;
  protocol?: 'tcp' | 'rdma';
  /** Undefined: NICs are used where there are some. */
  rdma?: Settings;
}

/** A transport that peers find by the engine's name, so that it always listens. */
const NAMED = 'tcp';
/** An engine that others can reach keeps its process, as a listening socket of Node's does; the accelerator's do not. */
const KEEP_ALIVE_MS = 2 ** 30;
/** Bytes into a record. */
const LENGTH = 24;
const NO_GENERATION = '0'.repeat(16);

interface Pending {
  what: string;
  move: Move;
  resolve(report: MoveReport): void;
  reject(error: MooncakeError): void;
}

export class NativePlane implements DataPlane {
  readonly accelerated = true;
  readonly generation: string;
  readonly #engine: NativeEngine;
  readonly #transports?: readonly string[];
  readonly #streams: number;
  readonly #protocol?: 'tcp' | 'rdma';
  readonly #rdma?: Settings;
  readonly #nics: Nics;
  readonly #batches = new Map<number, Pending>();
  readonly #peers = new Map<number, string>();
  #keepAlive?: NodeJS.Timeout;
  #closing?: Promise<void>;

  constructor(addon: Addon, answer: AnswerHandshake, options: NativePlaneOptions, carry?: CarryConnection) {
    const { transports, spinUs, gpuShare } = options;
    this.#transports = transports;
    this.#streams = options.streams;
    this.#protocol = options.protocol;
    this.#rdma = options.rdma;
    this.#engine = attempt(
      'the accelerator',
      () =>
        new addon.Engine({
          spinUs,
          gpuShare,
          transports: transports && [...new Set(['local', NAMED, ...transports])],
          onCompletions: (completions) => {
            for (const completion of completions) this.#completed(completion);
          },
          onHandshake: (id, type, text) => {
            // The native side gives up waiting, and closes, where nobody can answer.
            try {
              if (type === HANDSHAKE.connection && this.#nics.devices.length > 0) this.#nics.accept(id, text);
              else this.#engine.reply(id, answer(type, text));
            } catch {}
          },
          onShake: (id, peer, request) => this.#nics.carry(id, peer, request),
        }),
    );
    this.generation = this.#engine.generation;
    this.#nics = new Nics(this.#engine, {
      carry,
      insists: transports !== undefined || options.rdma !== undefined || options.protocol === 'rdma',
    });
  }

  async listen({ host, port, advertise }: ListenPlace): Promise<PlaneListener> {
    const tcp = attempt(`${host}:${port}`, () => this.#engine.listen(NAMED, { host, port: `${port}` }));
    this.#keepAlive = setInterval(() => {}, KEEP_ALIVE_MS);
    const own = { transport: NAMED, settings: { ...tcp, host: advertise } };
    const endpoints: Endpoint[] = this.#uses(NAMED) ? [own] : [];
    if (this.#uses('shm')) {
      // A machine or a sandbox may not have it; statistics say why.
      try {
        endpoints.push({ transport: 'shm', settings: this.#engine.listen('shm', {}) });
      } catch (error) {
        if (this.#transports) throw fromNative('shm', error);
      }
    }
    const name = formatName({ host: advertise, port: Number(tcp.port) });
    if (this.#uses('rdma')) endpoints.push(...this.#nics.listen(name, this.#rdma));
    const { devices } = this.#nics;
    if (this.#protocol === 'rdma' && devices.length === 0) {
      throw errors.notSupported('options.protocol "rdma"', 'no NIC is in use: see mooncake-ts doctor --rdma');
    }
    return { port: Number(tcp.port), endpoints, devices };
  }

  expose(segment: number, must = false): Promise<SegmentKeys | undefined> {
    return this.#nics.expose(segment, must);
  }

  #uses(transport: string): boolean {
    return this.#transports?.includes(transport) ?? true;
  }

  allocate(length: number, options: { writable: boolean; hugePages: boolean; numaNode?: number }): PlaneMemory {
    const { id, memory, address } = attempt('a segment', () => this.#engine.allocate(length, options));
    return { id, memory: new Uint8Array(memory), address };
  }

  register(memory: Uint8Array | ForeignMemory, writable: boolean, movable = false): PlaneMemory {
    if (memory instanceof Uint8Array) {
      const registered = attempt('memory', () => this.#engine.registerView(memory, writable));
      if (!movable) keepInPlace(memory);
      return { memory, ...registered };
    }
    const { address, length } = memory;
    const { id } = attempt('memory', () => this.#engine.registerAddress(address, length, writable));
    return { id, memory: new Uint8Array(), address };
  }

  registerDmaBuf({ fd, offset, length, pci }: Required<DmaBuf>, writable: boolean): PlaneMemory {
    const made = attempt(`the dma-buf ${fd}`, () => this.#engine.registerDmabuf(fd, offset, length, writable, pci));
    return { memory: new Uint8Array(), ...made };
  }

  async openFile(path: string, length: number | undefined, writable: boolean): Promise<{ id: number; length: number }> {
    try {
      return await this.#engine.openFile(path, length ?? 0, writable);
    } catch (error) {
      throw fromNative(path, error);
    }
  }

  registerDevice(memory: DeviceMemory): number {
    const { device, length } = memory;
    if ('parts' in memory || 'size' in memory) {
      const { offset = 0 } = memory;
      const parts = 'parts' in memory ? memory.parts : 'fd' in memory ? [memory] : undefined;
      const shared = parts === undefined ? (memory as { fabric: Uint8Array }).fabric : parts.map(({ fd }) => fd);
      const sizes = parts === undefined ? [(memory as { size: number }).size] : parts.map(({ size }) => size);
      return attempt(device, () => this.#engine.mapDevice(device, shared, sizes, offset, length));
    }
    return attempt(device, () =>
      'handle' in memory
        ? this.#engine.importDevice(device, memory.handle, memory.offset ?? 0, length)
        : this.#engine.registerDevice(device, memory.address, length),
    );
  }

  allocateDevice(device: string, length: number, exportable = false): number {
    return attempt(device, () =>
      exportable ? this.#engine.allocateVirtual(device, length) : this.#engine.allocateDevice(device, length),
    );
  }

  exportDescriptor(segment: number, kind: DescriptorKind): DeviceDescriptor {
    return attempt(`segment ${segment}`, () => this.#engine.exportDescriptor(segment, kind));
  }

  createEvent(device: string): number {
    return attempt(device, () => this.#engine.createEvent(device));
  }

  openEvent(device: string, handle: Uint8Array): number {
    return attempt(device, () => this.#engine.openEvent(device, handle));
  }

  exportEvent(event: number): Uint8Array {
    return attempt(`event ${event}`, () => this.#engine.exportEvent(event));
  }

  closeEvent(event: number): void {
    attempt(`event ${event}`, () => this.#engine.closeEvent(event));
  }

  exportDevice(segment: number): { handle: Uint8Array; offset: number } {
    return attempt(`segment ${segment}`, () => this.#engine.exportDevice(segment));
  }

  unregister(segment: number): Promise<void> {
    // Nothing touches any memory once that is over.
    if (this.#closing) return this.#closing;
    return new Promise((resolve) => attempt('segment', () => this.#engine.unregister(segment, resolve)));
  }

  openPeer({ name, generation, endpoints, data, rdma }: PeerPlaces): number {
    const usable = endpoints.filter(({ transport }) => this.#uses(transport));
    const ways = usable.map(({ transport, settings }) =>
      transport === NAMED
        ? { transport, settings: { streams: `${this.#streams}`, ...settings } }
        : { transport, settings },
    );
    if (ways.length === 0 && data) {
      const { host, port, version } = data;
      ways.push({ transport: NAMED, settings: { host, port: `${port}`, framing: `stock${version}` } });
    }
    if (ways.length === 0 && rdma) {
      if (this.#nics.devices.length === 0)
        throw errors.notSupported(`peer ${name}`, 'it speaks RDMA alone, and no NIC is in use here');
      ways.push(stockEndpoint(rdma));
    }
    const peer = attempt(name, () => this.#engine.openPeer(name, generation ?? NO_GENERATION, ways));
    this.#peers.set(peer, name);
    return peer;
  }

  setSegments(peer: number, segments: RemoteRange[]): void {
    const ranges = segments.map(({ id, address, length, keys, readOnly }) => ({
      id,
      address,
      length,
      keys: keys?.remote,
      writable: !readOnly,
    }));
    attempt('segments', () => this.#engine.setSegments(peer, ranges));
  }

  closePeer(peer: number): void {
    this.#peers.delete(peer);
    attempt('peer', () => this.#engine.closePeer(peer));
  }

  submit(operation: Operation, peer: number, move: Move): TransferBatch {
    const { limits, verify, gpu } = move;
    const descriptors = withoutEmpty(move.descriptors);
    if (descriptors.count === 0) {
      return { done: Promise.resolve({ bytes: 0, verifiedBytes: 0, milliseconds: 0 }), cancel: () => {} };
    }
    const what = operation === 'copy' ? 'the copy' : (this.#peers.get(peer) ?? 'the peer');
    const to = operation === 'copy' ? 0 : peer;
    const number = attempt(what, () =>
      gpu === undefined
        ? this.#engine.submit(OP[operation], to, descriptors.bytes, limits.timeoutMs, verify)
        : this.#engine.submit(OP[operation], to, descriptors.bytes, limits.timeoutMs, verify, {
            waitFor: gpu.waitFor && [...gpu.waitFor],
            record: gpu.record && [...gpu.record],
            ...gpu.rows,
          }),
    );
    const cancel = () => this.#engine.cancel(number);
    const done = new Promise<MoveReport>((resolve, reject) => {
      this.#batches.set(number, { what, move, resolve, reject });
    });
    if (!limits.signal) return { done, cancel };
    const forget = onAbort(limits.signal, cancel);
    return { done: done.finally(forget), cancel };
  }

  #completed({ batch, code, detail, bytes, verifiedBytes, milliseconds }: Completion): void {
    const pending = this.#batches.get(batch)!;
    this.#batches.delete(batch);
    const name = NATIVE_CODES[code];
    if (name === 'ok') pending.resolve({ bytes, verifiedBytes, milliseconds });
    else pending.reject(failure(name, pending.what, detail, pending.move));
  }

  statistics(): PlaneStatistics {
    return JSON.parse(this.#engine.statistics());
  }

  close(): Promise<void> {
    clearInterval(this.#keepAlive);
    this.#nics.close();
    this.#closing ??= new Promise((resolve) => this.#engine.close(resolve));
    return this.#closing;
  }
}

/** The records that have bytes: the accelerator takes no others. */
function withoutEmpty(descriptors: Descriptors): Descriptors {
  const { records, count } = descriptors;
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  const isEmpty = (index: number) => {
    const at = index * DESCRIPTOR_BYTES + LENGTH;
    return view.getUint32(at, true) === 0 && view.getUint32(at + 4, true) === 0;
  };
  let index = 0;
  while (index < count && !isEmpty(index)) index++;
  if (index === count) return descriptors;
  const kept = Array.from({ length: count }, (_, each) => each).filter((each) => !isEmpty(each));
  const bytes = allocateDescriptors(kept.length);
  kept.forEach((each, to) => {
    const from = each * DESCRIPTOR_BYTES;
    bytes.set(records.subarray(from, from + DESCRIPTOR_BYTES), (to + 1) * DESCRIPTOR_BYTES);
  });
  return new Descriptors(bytes);
}
