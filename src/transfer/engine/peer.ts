/**
 * A peer as its descriptor says it is: which run, where it moves data, and what memory it has. Stock engines give their
 * buffers no numbers, so they get ours: the same one as long as the same range is announced, and never another's.
 */
import { errors, type MooncakeError } from '../../core/errors.js';
import { type Limits, shared } from '../limits.js';
import type { Metadata } from '../metadata/backend.js';
import { type DataPort, parseDescriptor, type SegmentDescriptor } from '../metadata/descriptor.js';
import type { MoveDefaults } from '../move-options.js';
import type { CallLimits } from '../transfer.js';
import type { EnginePeer, PeerSegment } from './api.js';
import type { DataPlane, PeerPlaces } from './plane.js';

export interface PeerContext {
  plane: DataPlane;
  metadata: Metadata;
  defaults: MoveDefaults;
  onClose(peer: OpenPeer): void;
}

/** Of the run that has the name now; undefined where it is no engine of ours. */
export async function generationOf(name: string, metadata: Metadata, limits: Limits): Promise<string | undefined> {
  return parseDescriptor(await metadata.find(name, limits)).own?.generation;
}

export class OpenPeer implements EnginePeer {
  readonly name: string;
  generation?: string;
  segments: readonly PeerSegment[] = [];
  readonly #context: PeerContext;
  /** The plane's number for it, and what it was opened with; undefined before the first descriptor. */
  #open?: { number: number; places: string };
  #closed?: MooncakeError;
  #nextSegment = 0;

  private constructor(name: string, context: PeerContext) {
    this.name = name;
    this.#context = context;
  }

  static async open(name: string, context: PeerContext, limits: Limits): Promise<OpenPeer> {
    const peer = new OpenPeer(name, context);
    await peer.#load(limits);
    return peer;
  }

  /** For the plane. Throws ERR_CLOSED. */
  get number(): number {
    if (this.#closed) throw this.#closed;
    return this.#open!.number;
  }

  /** A move has found it gone: links that have given up are of no use when it is there again. */
  lost(): void {
    if (this.#open) this.#open.places = '';
  }

  at(address: bigint, length: number): { segment: number; offset: number } {
    const end = address + BigInt(length);
    const found = this.segments.find(
      (segment) => address >= segment.address && end <= segment.address + BigInt(segment.length),
    );
    if (!found)
      throw errors.segment('address', address, `${this.name} has announced no memory for ${length} bytes there`);
    return { segment: found.id, offset: Number(address - found.address) };
  }

  async refresh(limits?: CallLimits): Promise<void> {
    if (this.#closed) throw this.#closed;
    await this.#load(this.#context.defaults.limits(limits));
  }

  async #load(limits: Limits): Promise<void> {
    const { metadata } = this.#context;
    const left = shared(limits);
    const descriptor = parseDescriptor(await metadata.find(this.name, left()));
    const { data } = descriptor;
    // Engines that do not say where their data port is have it where they answer handshakes.
    const host = data && (data.host ?? (await metadata.place(this.name, left())).host);
    if (this.#closed) throw this.#closed;
    this.#apply(descriptor, data && { ...data, host: host! });
  }

  #apply({ name, own, protocol, buffers, devices }: SegmentDescriptor, data: Required<DataPort> | undefined): void {
    const { plane } = this.#context;
    const { generation, endpoints = [] } = own ?? {};
    const rdma = devices?.length && plane.accelerated ? { server: name, devices } : undefined;
    if (!data && endpoints.length === 0 && !rdma) {
      throw errors.notSupported(
        `peer ${this.name}`,
        `it speaks ${protocol}, and neither TCP nor what this engine speaks`,
      );
    }
    const opening: PeerPlaces = { name: this.name, generation, endpoints, data, rdma };
    const places = JSON.stringify(opening);
    if (this.#open?.places !== places) {
      const number = plane.openPeer(opening);
      if (this.#open) plane.closePeer(this.#open.number);
      this.#open = { number, places };
    }
    this.generation = generation;
    this.segments = own ? own.segments : buffers.map((buffer) => ({ ...buffer, id: this.#numberOf(buffer) }));
    plane.setSegments(this.#open.number, [...this.segments]);
  }

  #numberOf({ address, length }: { address: bigint; length: number }): number {
    const known = this.segments.find((segment) => segment.address === address && segment.length === length);
    return known?.id ?? this.#nextSegment++;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = errors.closed(`peer ${this.name}`);
    this.#context.plane.closePeer(this.#open!.number);
    this.#context.onClose(this);
  }
}
