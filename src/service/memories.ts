/**
 * The memory of an engine's rank: descriptors that it handed over by the descriptor socket, mapped here, and memory of GPUs by its
 * handles, which the connector's halves open, so that bytes move without passing the engine. It is let go when no half uses it,
 * not when the collector comes by.
 */
import { closeSync } from 'node:fs';
import { oneOf, string } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { KvLayout, type KvLayoutOptions } from '../core/layout.js';
import type { KvGroupOptions, KvPlace, KvTensorOptions } from '../core/layout-group.js';
import { type Addon, type DescriptorSocket, NATIVE_CODES } from '../native/addon.js';
import type { DeviceMemory } from '../transfer/engine/api.js';
import { checkDevice, keepInPlace } from '../transfer/engine/memory.js';
import { count, type Fields, list, record } from './arguments.js';
import type { EngineEvents, GpuEvents } from './gpu-events.js';

const KINDS = ['memfd', 'process', 'cuda-ipc', 'cuda-vmm-fd', 'cuda-fabric', 'dmabuf-fd'] as const;
const TICKET_BYTES = 16;
const MAX_MEMORIES = 1 << 14;
/** A layer's each, and one of the step. */
const MAX_EVENTS = 1 << 12;

/** How descriptors become memory; undefined where there is no accelerator. */
export interface MemorySource {
  readonly addon: Addon;
  readonly socket: DescriptorSocket;
  readonly events: GpuEvents;
}

/** Of this process, or of a GPU. */
export type RankMemory = Uint8Array | DeviceMemory;

export class Memories {
  readonly #source: MemorySource | undefined;
  #buffers: ArrayBuffer[] = [];
  #deviceBytes = 0;
  /** Of allocations on GPUs, until these are opened. */
  #descriptors: number[] = [];

  constructor(source: MemorySource | undefined) {
    this.#source = source;
  }

  get bytes(): number {
    return this.#buffers.reduce((sum, { byteLength }) => sum + byteLength, this.#deviceBytes);
  }

  /** Maps what process `pid` has handed over. Throws what is wrong with which, and has mapped nothing then. */
  open(value: unknown, pid: number): RankMemory[] {
    const given = list('memories', value);
    if (given.length > MAX_MEMORIES) throw errors.invalidArgument('memories', given, `at most ${MAX_MEMORIES}`);
    try {
      return given.map((one, index) => this.#open(`memories[${index}]`, record(`memories[${index}]`, one), pid));
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** The events by which the engine says what its GPU has done; undefined where it names none. Throws as `open`. */
  events(value: unknown): EngineEvents | undefined {
    if (value === undefined || value === null) return undefined;
    const { device, handles } = record('events', value);
    if (this.#source === undefined) throw errors.notSupported('events', 'this service has no accelerator');
    const given = list('events.handles', handles);
    if (given.length > MAX_EVENTS) throw errors.invalidArgument('events.handles', given, `at most ${MAX_EVENTS}`);
    return this.#source.events.open('events', string('events.device', device), given);
  }

  /** Whoever registers it has done so: descriptors are of no further use. */
  opened(): void {
    for (const fd of this.#descriptors.splice(0)) closeSync(fd);
  }

  /** Nothing may use it any more. */
  release(): void {
    this.opened();
    for (const buffer of this.#buffers.splice(0)) this.#source?.addon.releaseMemory(buffer);
    this.#deviceBytes = 0;
  }

  #open(argument: string, given: Fields, pid: number): RankMemory {
    const kind = oneOf(`${argument}.kind`, given.kind, KINDS);
    if (kind !== 'memfd' && kind !== 'cuda-ipc' && kind !== 'cuda-vmm-fd') {
      throw errors.notSupported(`${argument}.kind ${kind}`, 'hand over a memfd, or memory of a GPU');
    }
    if (this.#source === undefined) {
      throw errors.notSupported(`${argument}.kind ${kind}`, 'this service has no accelerator: see mooncake-ts doctor');
    }
    if (kind === 'cuda-ipc') return this.#device(argument, given);
    if (kind === 'cuda-vmm-fd') return this.#virtual(argument, given, pid, this.#source);
    const buffer = this.#map(argument, given, pid, this.#source);
    this.#buffers.push(buffer);
    const view = new Uint8Array(buffer);
    // Mapped memory looks like a WebAssembly.Memory's, which nobody may register, unless it is known to stay.
    keepInPlace(view);
    return view;
  }

  /** Opened by whoever registers it. */
  #device(argument: string, { device, handle, offset, length }: Fields): DeviceMemory {
    const memory = checkDevice({ device, handle, offset: offset ?? 0, length } as DeviceMemory, argument);
    this.#deviceBytes += memory.length;
    return memory;
  }

  /** Allocations that follow each other at the engine: opened by whoever registers them, all of them as one. */
  #virtual(argument: string, given: Fields, pid: number, source: MemorySource): DeviceMemory {
    const parts = list(`${argument}.parts`, given.parts).map((part, index) => {
      const path = `${argument}.parts[${index}]`;
      const { ticket, size } = record(path, part);
      const fd = attempt(path, count(`${path}.size`, size), () => {
        return source.socket.takeAllocation(ticketOf(path, ticket), pid);
      });
      this.#descriptors.push(fd);
      return { fd, size: size as number };
    });
    const { device, offset = 0, length } = given;
    const memory = checkDevice({ device, parts, offset, length } as DeviceMemory, argument);
    this.#deviceBytes += memory.length;
    return memory;
  }

  #map(argument: string, given: Fields, pid: number, source: MemorySource): ArrayBuffer {
    const ticket = ticketOf(argument, given.ticket);
    const offset = count(`${argument}.offset`, given.offset ?? 0);
    const length = count(`${argument}.length`, given.length);
    return attempt(argument, length, () => source.socket.take(ticket, pid, offset, length));
  }
}

function ticketOf(argument: string, ticket: unknown): Uint8Array {
  if (ticket instanceof Uint8Array && ticket.length === TICKET_BYTES) return ticket;
  throw errors.invalidArgument(`${argument}.ticket`, ticket, `binary of ${TICKET_BYTES} bytes`);
}

function attempt<T>(argument: string, length: number, take: () => T): T {
  try {
    return take();
  } catch (error) {
    if (error instanceof MooncakeError) throw error;
    throw refusal(argument, length, error as Error & { code?: number });
  }
}

function refusal(argument: string, length: number, error: Error & { code?: number }): MooncakeError {
  const why = `${argument}: ${error.message}`;
  const code = NATIVE_CODES[error.code ?? -1];
  if (code === 'outOfMemory' || code === 'system')
    return new MooncakeError('ERR_OUT_OF_MEMORY', why, { argument, value: length });
  if (code === 'notSupported') return new MooncakeError('ERR_NOT_SUPPORTED', why, { argument });
  return errors.segment(argument, length, error.message);
}

/** The layout, whose places name memories by index; the segments' lengths are those of the memories. */
export function layoutOf(value: unknown, memories: readonly RankMemory[], segments: readonly number[]): KvLayout {
  const given = record('layout', value);
  const groups = list('layout.groups', given.groups).map((group, index) => {
    const path = `layout.groups[${index}]`;
    const fields = record(path, group);
    const tensors: Record<string, KvTensorOptions> = {};
    for (const [name, tensor] of Object.entries(record(`${path}.tensors`, fields.tensors))) {
      const own = record(`${path}.tensors.${name}`, tensor);
      tensors[name] = { ...own, at: placesOf(`${path}.tensors.${name}.at`, own.at, segments) } as KvTensorOptions;
    }
    return { ...withoutNil(fields), tensors } as unknown as KvGroupOptions;
  });
  return new KvLayout({
    ...(withoutNil(given) as Partial<KvLayoutOptions>),
    groups,
    segments: segments.map((id, index) => ({ id, length: memories[index].length })),
  });
}

/** What a client leaves out it may also say as nil, but for the null block, where nil says that there is none. */
function withoutNil(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name, value]) => value !== null || name === 'nullBlock'));
}

function placesOf(path: string, value: unknown, segments: readonly number[]): KvPlace | KvPlace[] {
  const one = (argument: string, place: unknown): KvPlace => {
    const { segment, offset } = record(argument, place);
    const index = count(`${argument}.segment`, segment);
    if (index >= segments.length) {
      throw errors.invalidArgument(`${argument}.segment`, segment, `an index of the ${segments.length} memories`);
    }
    return { segment: segments[index], offset: count(`${argument}.offset`, offset) };
  };
  return Array.isArray(value) ? value.map((place, index) => one(`${path}[${index}]`, place)) : one(path, value);
}
