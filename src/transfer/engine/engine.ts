/**
 * The transfer engine (api.ts): names, metadata and handshakes over one of two data planes. Which one is in use shows in
 * `accelerated`; nothing else differs but speed, and what only the accelerator can do (addresses, shared memory, checksums
 * between engines).
 */
import { boolean, integer, oneOf, options as optionsOf, string } from '../../core/check.js';
import type { Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import { loadAddon, noteFallback, whyNoAddon } from '../../native/load.js';
import { readTopology } from '../../native/topology.js';
import { shared, watch } from '../limits.js';
import type { Metadata } from '../metadata/backend.js';
import { formatDescriptor } from '../metadata/descriptor.js';
import { exchange, HANDSHAKE } from '../metadata/handshake.js';
import { isObject, parseJson } from '../metadata/json.js';
import { formatName } from '../metadata/name.js';
import type { CallLimits, MoveOptions, MoveReport } from '../transfer.js';
import { Announcement } from './announcement.js';
import type {
  AllocateOptions,
  DescriptorKind,
  DeviceDescriptor,
  DeviceMemory,
  DmaBuf,
  EnginePeer,
  EngineStatistics,
  FileOptions,
  ForeignMemory,
  MemorySegment,
  Notification,
  SegmentOptions,
  Topology,
  TransferBatch,
  TransferEngineApi,
  TransferEngineOptions,
} from './api.js';
import { answerHandshake, Notifications } from './handshakes.js';
import { checkDevice, checkDmaBuf, checkMemory, handle64, isDmaBuf } from './memory.js';
import { NativePlane } from './native-plane.js';
import { type EngineSettings, engineSettings } from './options.js';
import { generationOf, OpenPeer } from './peer.js';
import type { DataPlane, Operation, PlaneListener } from './plane.js';
import { PortablePlane } from './portable-plane.js';
import { ACCESS, RegisteredSegments } from './registered.js';
import { StagedMoves } from './staged-moves.js';

/** How long a peer may take to answer a NIC that asks for a connection. */
const CONNECT_MS = 5000;

/** Carries such questions. */
function carrierOf(metadata: Metadata) {
  return async (peer: string, text: string) => {
    const left = shared({ timeoutMs: CONNECT_MS });
    return exchange(await metadata.place(peer, left()), HANDSHAKE.connection, text, left());
  };
}

/** To find out why a move failed. */
const EXPLAIN_MS = 1000;

/** What handshakes are answered from, which may come in before `create` has returned. */
interface Answers {
  notifications: Notifications;
  describe(): string;
}

export class TransferEngine implements TransferEngineApi {
  readonly name: string;
  readonly why?: string;
  readonly #settings: EngineSettings;
  readonly #plane: DataPlane;
  readonly #announcement: Announcement;
  readonly #notifications: Notifications;
  readonly #segments = new RegisteredSegments();
  readonly #peers = new Map<string, OpenPeer>();
  readonly #staged: StagedMoves;
  #closing?: Promise<void>;

  private constructor(
    settings: EngineSettings,
    plane: DataPlane,
    listener: PlaneListener,
    answers: Answers,
    why?: string,
  ) {
    this.#settings = settings;
    this.#plane = plane;
    this.#staged = new StagedMoves(plane);
    this.#notifications = answers.notifications;
    this.why = why;
    const place = { host: settings.advertise, port: listener.port };
    this.name = formatName(place);
    const describe = () => this.#describe(listener);
    this.#announcement = new Announcement(settings.metadata, this.name, place, describe);
    answers.describe = describe;
  }

  /**
   * Listens, tells others by the metadata that it is there, and resolves.
   * @throws ERR_INVALID_ARGUMENT, ERR_NOT_SUPPORTED, and ERR_PEER where the port or the metadata server cannot be had
   */
  static async create(options?: TransferEngineOptions): Promise<TransferEngine> {
    const settings = engineSettings(options);
    const answers: Answers = { notifications: new Notifications(), describe: () => '{}' };
    const answer = (type: number, text: string) => answerHandshake(type, text, answers.describe, answers.notifications);
    const loaded = settings.native ? loadAddon() : undefined;
    if (loaded && !loaded.addon) noteFallback();
    const plane = loaded?.addon
      ? new NativePlane(loaded.addon, answer, settings, carrierOf(settings.metadata))
      : new PortablePlane(answer, settings.streams);
    const why = plane.accelerated ? undefined : loaded ? whyNoAddon(loaded) : 'switched off by options.native';
    try {
      const listener = await plane.listen(settings);
      const engine = new TransferEngine(settings, plane, listener, answers, why);
      await engine.#announcement.publish();
      return engine;
    } catch (error) {
      await plane.close();
      throw error;
    }
  }

  get generation(): string {
    return this.#plane.generation;
  }

  get accelerated(): boolean {
    return this.#plane.accelerated;
  }

  #describe({ port, endpoints, devices }: PlaneListener): string {
    const segments = this.#segments.announced;
    return formatDescriptor({
      name: this.name,
      protocol: this.#settings.protocol,
      data: { host: this.#settings.advertise, port, version: 2 },
      devices,
      // Stock engines over TCP would find no memory at its address.
      buffers: segments
        .filter(({ unmapped }) => this.#settings.protocol === 'rdma' || !unmapped)
        .map((segment) => ({ ...segment, name: this.name })),
      own: { generation: this.generation, endpoints, segments },
    });
  }

  #checkOpen(): void {
    if (this.#closing) throw errors.closed(`transfer engine ${this.name}`);
  }

  async allocate(length: number, options?: AllocateOptions): Promise<MemorySegment> {
    this.#checkOpen();
    integer('length', length, 1, Number.MAX_SAFE_INTEGER);
    const { hugePages = true, numaNode } = optionsOf('options', options);
    if (numaNode !== undefined) integer('options.numaNode', numaNode, 0, 4095);
    const wanted = this.#segments.check(options);
    const memory = this.#plane.allocate(length, { writable: wanted.writable, hugePages, numaNode });
    return this.#announced(this.#segments.add(memory, length, wanted));
  }

  async register(memory: Uint8Array | ForeignMemory | DmaBuf, options?: SegmentOptions): Promise<MemorySegment> {
    this.#checkOpen();
    if (isDmaBuf(memory)) return this.#registerDmaBuf(memory, options);
    const checked = checkMemory(memory);
    const wanted = this.#segments.check(options);
    return this.#announced(this.#segments.add(this.#plane.register(checked, wanted.writable), checked.length, wanted));
  }

  async #registerDmaBuf(memory: DmaBuf, options: SegmentOptions | undefined): Promise<MemorySegment> {
    const checked = checkDmaBuf(memory);
    const wanted = { ...this.#segments.check(options), unmapped: true };
    const registered = this.#plane.registerDmaBuf(checked, wanted.writable);
    return this.#announced(this.#segments.add(registered, checked.length, wanted), true);
  }

  /**
   * Registers memory for the moves that this engine begins: at once, since nobody is told of it. Those who guess its address
   * may read it. `movable`: the caller sees to it that its buffer stays where it is, which is not marked then. For transfers
   * built on an engine, which have checked the memory.
   */
  registerUnannounced(memory: Uint8Array, movable: boolean): number {
    this.#checkOpen();
    const { id } = this.#plane.register(memory, false, movable);
    this.#segments.addUnannounced(id, memory.length);
    return id;
  }

  /** A segment that nobody can learn of is taken back. `byNics`: nothing else reaches it. */
  async #announced(segment: MemorySegment, byNics = false): Promise<MemorySegment> {
    try {
      this.#segments.setKeys(segment.id, await this.#plane.expose(segment.id, byNics));
      await this.#announcement.publish();
    } catch (error) {
      await this.unregister(segment.id).catch(() => {});
      throw error;
    }
    return segment;
  }

  async openFile(path: string, options?: FileOptions): Promise<{ id: number; length: number }> {
    this.#checkOpen();
    string('path', path);
    const { length, access = 'read-write' } = optionsOf('options', options);
    if (length !== undefined) integer('options.length', length, 1, Number.MAX_SAFE_INTEGER);
    const file = await this.#plane.openFile(path, length, oneOf('options.access', access, ACCESS) === 'read-write');
    return this.#unannounced(file.id, file.length);
  }

  async registerDevice(memory: DeviceMemory): Promise<{ id: number; length: number }> {
    return this.registerDeviceUnannounced(memory);
  }

  /** The same at once, for transfers built on an engine. */
  registerDeviceUnannounced(memory: DeviceMemory): { id: number; length: number } {
    this.#checkOpen();
    const checked = checkDevice(memory);
    return this.#device(this.#plane.registerDevice(checked), checked.length);
  }

  async allocateDevice(
    device: string,
    length: number,
    options?: { exportable?: boolean },
  ): Promise<{ id: number; length: number }> {
    this.#checkOpen();
    integer('length', length, 1, Number.MAX_SAFE_INTEGER);
    const { exportable = false } = optionsOf('options', options);
    boolean('options.exportable', exportable);
    return this.#device(this.#plane.allocateDevice(string('device', device), length, exportable), length);
  }

  exportDevice(segment: number): { handle: Uint8Array; offset: number } {
    this.#checkOpen();
    return this.#plane.exportDevice(integer('segment', segment, 0, 0xffff_ffff));
  }

  exportDescriptor(segment: number, kind: DescriptorKind): DeviceDescriptor {
    this.#checkOpen();
    const checked = oneOf('kind', kind, ['cuda-vmm-fd', 'dma-buf'] as const);
    return this.#plane.exportDescriptor(integer('segment', segment, 0, 0xffff_ffff), checked);
  }

  createEvent(device: string): number {
    this.#checkOpen();
    return this.#plane.createEvent(string('device', device));
  }

  openEvent(device: string, handle: Uint8Array): number {
    this.#checkOpen();
    return this.#plane.openEvent(string('device', device), handle64('handle', handle));
  }

  exportEvent(event: number): Uint8Array {
    this.#checkOpen();
    return this.#plane.exportEvent(integer('event', event, 0, 0xffff_ffff));
  }

  closeEvent(event: number): void {
    this.#checkOpen();
    this.#plane.closeEvent(integer('event', event, 0, 0xffff_ffff));
  }

  #device(id: number, length: number): { id: number; length: number } {
    this.#staged.add(id, length);
    return this.#unannounced(id, length);
  }

  #unannounced(id: number, length: number): { id: number; length: number } {
    this.#segments.addUnannounced(id, length);
    return { id, length };
  }

  async unregister(segment: number, limits?: CallLimits): Promise<void> {
    const checked = this.#settings.defaults.limits(limits);
    const { memory } = this.#segments.remove(segment);
    this.#staged.remove(segment);
    const released = this.#plane.unregister(segment);
    await new Promise<void>((resolve, reject) => {
      const stop = watch(`unregistering segment ${segment}`, checked, reject);
      released.then(resolve, reject).finally(stop);
    });
    if (memory && !this.#closing) await this.#announcement.publish();
  }

  async open(name: string, limits?: CallLimits): Promise<EnginePeer> {
    this.#checkOpen();
    const checked = this.#settings.defaults.limits(limits);
    const key = string('name', name);
    const left = shared(checked);
    const known = this.#peers.get(key);
    if (known) {
      await known.refresh(left());
      return known;
    }
    const { metadata, defaults } = this.#settings;
    const onClose = (closed: OpenPeer) => {
      if (this.#peers.get(key) === closed) this.#peers.delete(key);
    };
    const peer = await OpenPeer.open(key, { plane: this.#plane, metadata, defaults, onClose }, left());
    const other = this.#closing ? undefined : this.#peers.get(key);
    if (!other && !this.#closing) this.#peers.set(key, peer);
    else peer.close();
    this.#checkOpen();
    return other ?? peer;
  }

  submit(op: 'read' | 'write', peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): TransferBatch {
    oneOf('op', op, ['read', 'write'] as const);
    if (!(peer instanceof OpenPeer) || !this.#owns(peer)) {
      throw errors.invalidArgument('peer', peer, 'a peer that this engine has opened');
    }
    const batch = this.#submit(op, peer.number, descriptors, options);
    return { done: batch.done.catch((error) => this.#explain(peer, error)), cancel: () => batch.cancel() };
  }

  /** A closed one is for `number` to refuse. */
  #owns(peer: OpenPeer): boolean {
    const open = this.#peers.get(peer.name);
    return open === undefined || open === peer;
  }

  #submit(operation: Operation, peer: number, descriptors: Descriptors, options?: MoveOptions): TransferBatch {
    this.#checkOpen();
    const move = this.#settings.defaults.move(descriptors, options);
    if (move.gpu !== undefined && (operation !== 'copy' || !this.accelerated)) {
      throw errors.notSupported('options.gpu', 'only copies within an engine that has the accelerator are ordered so');
    }
    return this.#staged.submit(operation, peer, move);
  }

  /** Mooncake's stream does not say which run serves it: where a peer of ours knows an address no more, it is asked. */
  async #explain(peer: OpenPeer, error: unknown): Promise<never> {
    const code = error instanceof MooncakeError ? error.code : undefined;
    if (code === 'ERR_PEER') peer.lost();
    if ((code === 'ERR_SEGMENT' || code === 'ERR_PROTOCOL') && peer.generation !== undefined && !this.#closing) {
      const { metadata } = this.#settings;
      const now = await generationOf(peer.name, metadata, { timeoutMs: EXPLAIN_MS }).catch(() => undefined);
      if (now !== undefined && now !== peer.generation) {
        throw errors.peer(peer.name, 'it was started again: refresh it', error);
      }
    }
    throw error;
  }

  async read(peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.submit('read', peer, descriptors, options).done;
  }

  async write(peer: EnginePeer, descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.submit('write', peer, descriptors, options).done;
  }

  async copy(descriptors: Descriptors, options?: MoveOptions): Promise<MoveReport> {
    return this.#submit('copy', 0, descriptors, options).done;
  }

  async notify(name: string, notification: Notification, limits?: CallLimits): Promise<void> {
    const message = optionsOf('notification', notification);
    const text = JSON.stringify({
      name: string('notification.name', message.name),
      notify_msg: string('notification.message', message.message),
    });
    const answer = parseJson(
      'the answer to a notification',
      await this.#handshake(name, HANDSHAKE.notify, text, limits),
    );
    if (!isObject(answer) || answer.notify_msg !== 'success') {
      throw errors.peer(name, `refused the notification: ${JSON.stringify(answer).slice(0, 200)}`);
    }
  }

  onNotification(listener: (notification: Notification) => void): () => void {
    if (typeof listener !== 'function') throw errors.invalidArgument('listener', listener, 'a function');
    return this.#notifications.listen(listener);
  }

  async probe(name: string, limits?: CallLimits): Promise<boolean> {
    try {
      const answer = parseJson('the answer to a probe', await this.#handshake(name, HANDSHAKE.probe, '{}', limits));
      return isObject(answer) && answer.status === 'success';
    } catch (error) {
      const silent = error instanceof MooncakeError && ['ERR_PEER', 'ERR_PROTOCOL', 'ERR_TIMEOUT'].includes(error.code);
      if (silent) return false;
      throw error;
    }
  }

  async #handshake(name: string, type: number, text: string, limits: CallLimits | undefined): Promise<string> {
    this.#checkOpen();
    const left = shared(this.#settings.defaults.limits(limits));
    const place = await this.#settings.metadata.place(string('name', name), left());
    return exchange(place, type, text, left());
  }

  topology(): Topology {
    return readTopology();
  }

  statistics(): EngineStatistics {
    this.#checkOpen();
    return { ...this.#plane.statistics(), segments: this.#segments.figures };
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    await this.#announcement.withdraw();
    await this.#plane.close();
    this.#peers.clear();
  }
}
