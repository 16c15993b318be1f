/** The data plane of the accelerator: its engine object, with promises for its completions and MooncakeErrors for its codes. */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import {
  type Addon,
  type Completion,
  type Endpoint,
  type ExposeDone,
  NATIVE_CODES,
  type NativeEngine,
  OP,
  type Settings,
} from '../../native/addon.js';
import { onAbort } from '../../pool/abort.js';
import { formatConnection, parseConnection } from '../metadata/connection.js';
import type { RdmaDevice, SegmentKeys } from '../metadata/descriptor.js';
import { HANDSHAKE } from '../metadata/handshake.js';
import { formatName } from '../metadata/name.js';
import type { Move } from '../move-options.js';
import type { MoveReport } from '../transfer.js';
import type { DeviceMemory, ForeignMemory, TransferBatch } from './api.js';
import { keepInPlace } from './memory.js';
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
  protocol?: 'tcp' | 'rdma';
  /** Undefined: NICs are used where there are some. */
  rdma?: Settings;
}

/** Carries the text of a connection's handshake to a peer; its answer. */
export type CarryConnection = (peer: string, text: string) => Promise<string>;

type NativeCode = (typeof NATIVE_CODES)[number];

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
  /** Undefined: no RDMA, which needs it. */
  readonly #carry?: CarryConnection;
  #devices: RdmaDevice[] = [];
  readonly #batches = new Map<number, Pending>();
  readonly #peers = new Map<number, string>();
  #keepAlive?: NodeJS.Timeout;
  #closing?: Promise<void>;

  constructor(addon: Addon, answer: AnswerHandshake, options: NativePlaneOptions, carry?: CarryConnection) {
    const { transports, spinUs } = options;
    this.#transports = transports;
    this.#streams = options.streams;
    this.#protocol = options.protocol;
    this.#rdma = options.rdma;
    this.#carry = carry;
    this.#engine = attempt(
      'the accelerator',
      () =>
        new addon.Engine({
          spinUs,
          transports: transports && [...new Set(['local', NAMED, ...transports])],
          onCompletions: (completions) => {
            for (const completion of completions) this.#completed(completion);
          },
          onHandshake: (id, type, text) => {
            // The native side gives up waiting, and closes, where nobody can answer.
            try {
              if (type === HANDSHAKE.connection && this.#devices.length > 0) this.#accept(id, text);
              else this.#engine.reply(id, answer(type, text));
            } catch {}
          },
          onShake: (id, peer, request) => {
            this.#carry!(peer, formatConnection(request))
              .then(parseConnection)
              .catch((error: Error) => error.message)
              .then((said) => this.#closing || this.#engine.shaken(id, said));
          },
        }),
    );
    this.generation = this.#engine.generation;
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
    if (this.#carry && this.#uses('rdma')) endpoints.push(...this.#listenRdma(name));
    if (this.#protocol === 'rdma' && this.#devices.length === 0) {
      throw errors.notSupported('options.protocol "rdma"', 'no NIC is in use: see mooncake-ts doctor --rdma');
    }
    return { port: Number(tcp.port), endpoints, devices: this.#devices };
  }

  #listenRdma(server: string): Endpoint[] {
    try {
      const settings = this.#engine.listen('rdma', { ...this.#rdma, server });
      const [names, gids, lids] = [settings.devices, settings.gids, settings.lids].map((list) => list.split(','));
      this.#devices = names.map((name, at) => ({ name, gid: gids[at], lid: Number(lids[at]) }));
      return [{ transport: 'rdma', settings }];
    } catch (error) {
      // Most machines have no NIC for it; who asks for it hears why.
      if (this.#transports || this.#rdma || this.#protocol === 'rdma') throw fromNative('rdma', error);
      return [];
    }
  }

  /** A peer's NIC asks for a connection. */
  #accept(id: number, text: string): void {
    const request = parseConnection(text);
    // It says that it is ready: an answer without content is expected.
    if (request.ready_ack === 'true') {
      this.#engine.reply(id, formatConnection({}));
      return;
    }
    this.#engine.accept('rdma', request, (answer) => {
      if (!this.#closing) this.#engine.reply(id, formatConnection({ ready_ack: 'false', ...answer }));
    });
  }

  async expose(segment: number): Promise<SegmentKeys | undefined> {
    if (this.#devices.length === 0) return undefined;
    try {
      return await new Promise<SegmentKeys>((resolve, reject) => {
        const done: ExposeDone = (code, local, remote) => {
          if (typeof local !== 'string') resolve({ local, remote: remote! });
          else reject(failure(NATIVE_CODES[code], `segment ${segment}`, local));
        };
        attempt('a segment', () => this.#engine.expose('rdma', segment, done));
      });
    } catch (error) {
      if (this.#transports || this.#rdma || this.#protocol === 'rdma') throw error;
      // Other transports reach it.
      warnOnce((error as Error).message);
      return undefined;
    }
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

  async openFile(path: string, length: number | undefined, writable: boolean): Promise<{ id: number; length: number }> {
    try {
      return await this.#engine.openFile(path, length ?? 0, writable);
    } catch (error) {
      throw fromNative(path, error);
    }
  }

  registerDevice(memory: DeviceMemory): number {
    const { device, length } = memory;
    return attempt(device, () =>
      'handle' in memory
        ? this.#engine.importDevice(device, memory.handle, memory.offset ?? 0, length)
        : this.#engine.registerDevice(device, memory.address, length),
    );
  }

  allocateDevice(device: string, length: number): number {
    return attempt(device, () => this.#engine.allocateDevice(device, length));
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
    if (ways.length === 0 && rdma && this.#devices.length > 0) {
      const list = (key: 'name' | 'gid' | 'lid') => rdma.devices.map((device) => device[key]).join(',');
      const settings = { server: rdma.server, devices: list('name'), gids: list('gid'), lids: list('lid') };
      ways.push({ transport: 'rdma', settings: { ...settings, protocol: 'stock' } });
    }
    const peer = attempt(name, () => this.#engine.openPeer(name, generation ?? NO_GENERATION, ways));
    this.#peers.set(peer, name);
    return peer;
  }

  setSegments(peer: number, segments: RemoteRange[]): void {
    const ranges = segments.map(({ id, address, length, keys }) => ({ id, address, length, keys: keys?.remote }));
    attempt('segments', () => this.#engine.setSegments(peer, ranges));
  }

  closePeer(peer: number): void {
    this.#peers.delete(peer);
    attempt('peer', () => this.#engine.closePeer(peer));
  }

  submit(operation: Operation, peer: number, move: Move): TransferBatch {
    const { limits, verify } = move;
    const descriptors = withoutEmpty(move.descriptors);
    if (descriptors.count === 0) {
      return { done: Promise.resolve({ bytes: 0, verifiedBytes: 0, milliseconds: 0 }), cancel: () => {} };
    }
    const what = operation === 'copy' ? 'the copy' : (this.#peers.get(peer) ?? 'the peer');
    const to = operation === 'copy' ? 0 : peer;
    const number = attempt(what, () =>
      this.#engine.submit(OP[operation], to, descriptors.bytes, limits.timeoutMs, verify),
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
    this.#closing ??= new Promise((resolve) => this.#engine.close(resolve));
    return this.#closing;
  }
}

let warned = false;

/** That NICs do not take memory: the same for all segments, mostly. */
function warnOnce(why: string): void {
  if (warned) return;
  warned = true;
  process.emitWarning(why, {
    code: 'MOONCAKE_RDMA_REGISTRATION',
    detail: 'it is reached without RDMA: see docs/rdma.md',
  });
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

/** Runs a call of the addon; its errors by their codes. */
function attempt<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(what, error);
  }
}

function fromNative(what: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message: string };
  const name = typeof code === 'number' ? NATIVE_CODES[code] : undefined;
  return name === undefined ? error : failure(name, what, message);
}

function failure(code: NativeCode, what: string, detail: string, move?: Move): MooncakeError {
  switch (code) {
    case 'ok':
    case 'system':
    case 'peer':
      return errors.peer(what, detail);
    case 'invalidArgument':
      return new MooncakeError('ERR_INVALID_ARGUMENT', `${what}: ${detail}`, { argument: what });
    case 'segment':
      return new MooncakeError('ERR_SEGMENT', `${what}: ${detail}`, { argument: what });
    case 'timeout':
      return errors.timeout(`the move with ${what}`, move?.limits.timeoutMs ?? 0);
    case 'aborted':
      return errors.aborted(move?.limits.signal?.reason);
    case 'closed':
      return errors.closed(what);
    case 'corrupt':
      return errors.corrupt(`${what}: ${detail}`);
    case 'protocol':
      return errors.protocol(`${what}: ${detail}`);
    case 'queueFull':
      return new MooncakeError('ERR_QUEUE_FULL', `${what}: ${detail}`, { argument: what });
    case 'notSupported':
      return errors.notSupported(what, detail);
    case 'outOfMemory':
      return new MooncakeError('ERR_OUT_OF_MEMORY', `${what}: ${detail}`, { argument: what });
  }
}
