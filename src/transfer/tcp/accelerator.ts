/**
 * Moves of a TcpTransfer over the accelerator (docs/native.md), where both sides have it: requests, liveness and segments stay
 * on the connection, bytes take the links of the native engines. Each side says in its hello how its engine is reached. A
 * segment's number in the peer's engine is asked for when it is first met; until the answer is there, and whenever the engines
 * cannot carry a batch, it goes over the connection as ever.
 */
import { DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { Endpoint, Settings } from '../../native/addon.js';
import { loadAddon } from '../../native/load.js';
import { isWebAssembly } from '../engine/memory.js';
import { NativePlane } from '../engine/native-plane.js';
import type { RemoteRange } from '../engine/plane.js';
import type { Move } from '../move-options.js';
import { Ranges } from '../ranges.js';
import { hold, type SegmentTable } from '../segments.js';
import type { MoveReport } from '../transfer.js';

/** How a peer's engine is reached: part of a hello. */
export interface EngineHello {
  /** 16 hex digits. */
  generation: string;
  endpoints: Endpoint[];
}

/** Where a segment lies in its owner's engine: the answer to a question by its number in the transfer. */
export type NativeSegment = RemoteRange;

const STREAMS = 2;
const LOOK_MS = 25;
/** Links that are not there after so many looks are not expected any more: a firewall may let the one port through alone. */
const LOOKS = 200;
/** Failures of the engines, not of the batch: the connection may still carry it. */
const RETRIED = ['ERR_PEER', 'ERR_SEGMENT', 'ERR_NOT_SUPPORTED', 'ERR_CLOSED', 'ERR_QUEUE_FULL', 'ERR_PROTOCOL'];
// Bytes into a record.
const SOURCE = 0;
const DESTINATION = 4;

export class Accelerator {
  readonly hello: EngineHello;
  readonly #plane: NativePlane;
  readonly #segments: SegmentTable;
  /** By their numbers in the transfer. */
  readonly #native = new Map<number, NativeSegment>();

  private constructor(plane: NativePlane, endpoints: Endpoint[], segments: SegmentTable) {
    this.hello = { generation: plane.generation, endpoints };
    this.#plane = plane;
    this.#segments = segments;
  }

  /** Undefined where there is no addon. Listens on a port of its own. */
  static async open(host: string, advertise: string, segments: SegmentTable): Promise<Accelerator | undefined> {
    const { addon } = loadAddon();
    if (!addon) return undefined;
    // Handshakes are the transfer engine's; nobody is told of this one.
    const plane = new NativePlane(addon, () => '{}', { streams: STREAMS });
    try {
      const { endpoints } = await plane.listen({ host, port: 0, advertise });
      return new Accelerator(plane, endpoints, segments);
    } catch (error) {
      await plane.close();
      throw error;
    }
  }

  /** Memory that may detach is left to the connection, which looks at it before each piece. */
  register(segment: number, memory: Uint8Array, writable: boolean): void {
    if (isWebAssembly(memory.buffer)) return;
    try {
      const { id, address } = this.#plane.register(memory, writable);
      this.#native.set(segment, { id, address, length: memory.length });
    } catch (error) {
      // What the engine cannot take still moves over the connection.
      if (!(error instanceof MooncakeError)) throw error;
    }
  }

  async unregister(segment: number): Promise<void> {
    const native = this.#native.get(segment);
    if (!native) return;
    this.#native.delete(segment);
    await this.#plane.unregister(native.id);
  }

  find(segment: number): NativeSegment | undefined {
    return this.#native.get(segment);
  }

  /** `lookUp` asks the peer for a segment by its number in the peer's transfer. Undefined: its engine cannot be reached. */
  peer(name: string, hello: EngineHello, lookUp: LookUp): AcceleratedPeer | undefined {
    const context = { plane: this.#plane, ours: this.#native, segments: this.#segments, lookUp };
    try {
      return new AcceleratedPeer(context, name, hello);
    } catch (error) {
      if (error instanceof MooncakeError) return undefined;
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#plane.close();
  }
}

type LookUp = (segment: number) => Promise<NativeSegment | undefined>;

interface Context {
  plane: NativePlane;
  ours: Map<number, NativeSegment>;
  segments: SegmentTable;
  lookUp: LookUp;
}

export class AcceleratedPeer {
  readonly #context: Context;
  readonly #name: string;
  readonly #number: number;
  /** By their numbers in the peer's transfer; undefined while it is asked, or where it has none. */
  readonly #theirs = new Map<number, NativeSegment | undefined>();
  #ready = false;
  #ended?: MooncakeError;
  readonly #looking: NodeJS.Timeout;

  constructor(context: Context, name: string, { generation, endpoints }: EngineHello) {
    this.#context = context;
    // Of its own: several connections may lead to the same address.
    this.#name = `${name} ${generation}`;
    this.#number = context.plane.openPeer({ name: this.#name, generation, endpoints });
    let looks = 0;
    this.#looking = setInterval(() => {
      this.#ready = context.plane.statistics().links.some(({ peer, alive }) => peer === this.#name && alive);
      if (this.#ready || ++looks === LOOKS) clearInterval(this.#looking);
    }, LOOK_MS).unref();
  }

  /** Asks for a segment before the first move needs it. */
  learn(segment: number): void {
    if (this.#theirs.has(segment)) return;
    this.#theirs.set(segment, undefined);
    this.#context.lookUp(segment).then(
      (native) => {
        if (this.#ended || !native) return;
        this.#theirs.set(segment, native);
        const known = [...this.#theirs.values()].filter((each) => each !== undefined);
        this.#context.plane.setSegments(this.#number, known);
      },
      () => this.#theirs.delete(segment),
    );
  }

  /**
   * Moves the batch over the engines; undefined where the connection must: they are not there, or do not know a segment, or
   * have failed it. Otherwise it ends as any move does.
   */
  async run(kind: 'read' | 'write', move: Move): Promise<MoveReport | undefined> {
    const descriptors = this.#ready ? this.#translate(kind, move.descriptors) : undefined;
    if (!descriptors) return undefined;
    const { plane, segments } = this.#context;
    const ranges = new Ranges(move.descriptors, kind === 'read' ? 'destination' : 'source', segments);
    const release = hold(ranges.segments);
    try {
      return await plane.submit(kind, this.#number, { ...move, descriptors }).done;
    } catch (error) {
      if (this.#ended) throw this.#ended;
      if (!(error instanceof MooncakeError) || !RETRIED.includes(error.code)) throw error;
      return undefined;
    } finally {
      release();
    }
  }

  /** The records with the engines' numbers; undefined where one is not known. */
  #translate(kind: 'read' | 'write', descriptors: Descriptors): Descriptors | undefined {
    const bytes = descriptors.bytes.slice();
    const view = new DataView(bytes.buffer);
    const [source, destination] =
      kind === 'read' ? [this.#theirs, this.#context.ours] : [this.#context.ours, this.#theirs];
    let complete = true;
    for (let at = DESCRIPTOR_BYTES; at < bytes.length; at += DESCRIPTOR_BYTES) {
      for (const [table, field] of [
        [source, at + SOURCE],
        [destination, at + DESTINATION],
      ] as const) {
        const number = view.getUint32(field, true);
        const native = table.get(number);
        if (native) view.setUint32(field, native.id, true);
        else {
          complete = false;
          if (table === this.#theirs) this.learn(number);
        }
      }
    }
    return complete ? new Descriptors(bytes) : undefined;
  }

  /** The connection has ended, and so do the moves. */
  end(reason: MooncakeError): void {
    this.#ended = reason;
    clearInterval(this.#looking);
    this.#context.plane.closePeer(this.#number);
  }
}

/** A peer's way to its engine, with the host that it is known by to be itself: a hello may claim any. */
export function reachable(hello: EngineHello, host: string): EngineHello {
  const own = (settings: Settings) => ('host' in settings && 'port' in settings ? { ...settings, host } : settings);
  const endpoints = hello.endpoints.map(({ transport, settings }) => ({ transport, settings: own(settings) }));
  return { ...hello, endpoints };
}

/** Throws ERR_PROTOCOL. */
export function readNativeSegment(answer: unknown): NativeSegment | undefined {
  if (answer === null) return undefined;
  const { id, address, length } = answer as Partial<NativeSegment>;
  const valid = Number.isInteger(id) && typeof address === 'bigint' && Number.isSafeInteger(length) && length! > 0;
  if (!valid) throw errors.protocol('a native segment without number, address or length', answer);
  return { id: id!, address: address!, length: length! };
}
