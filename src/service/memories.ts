/**
 * The memory of an engine's rank: descriptors that it handed over by the descriptor socket, mapped here, and memory of GPUs by its
 * handles, which the connector's halves open, so that bytes move without passing the engine. It is let go when no half uses it,
 * not when the collector comes by.
 */
import { oneOf } from '../core/check.js';
import { errors, MooncakeError } from '../core/errors.js';
import { KvLayout, type KvLayoutOptions } from '../core/layout.js';
import type { KvGroupOptions, KvPlace, KvTensorOptions } from '../core/layout-group.js';
import { type Addon, type DescriptorSocket, NATIVE_CODES } from '../native/addon.js';
import type { DeviceMemory } from '../transfer/engine/api.js';
import { checkDevice, keepInPlace } from '../transfer/engine/memory.js';
import { count, type Fields, list, record } from './arguments.js';

const KINDS = ['memfd', 'process', 'cuda-ipc', 'cuda-vmm-fd', 'cuda-fabric', 'dmabuf-fd'] as const;
const TICKET_BYTES = 16;
const MAX_MEMORIES = 1 << 14;

/** How descriptors become memory; undefined where there is no accelerator. */
export interface MemorySource {
  readonly addon: Addon;
  readonly socket: DescriptorSocket;
}

/** Of this process, or of a GPU. */
export type RankMemory = Uint8Array | DeviceMemory;

export class Memories {
  readonly #source: MemorySource | undefined;
  #buffers: ArrayBuffer[] = [];
  #deviceBytes = 0;

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

  /** Nothing may use it any more. */
  release(): void {
    for (const buffer of this.#buffers.splice(0)) this.#source?.addon.releaseMemory(buffer);
    this.#deviceBytes = 0;
  }

  #open(argument: string, given: Fields, pid: number): RankMemory {
    const kind = oneOf(`${argument}.kind`, given.kind, KINDS);
    if (kind !== 'memfd' && kind !== 'cuda-ipc') {
      throw errors.notSupported(`${argument}.kind ${kind}`, 'hand over a memfd, or memory of cudaMalloc as cuda-ipc');
    }
    if (this.#source === undefined) {
      throw errors.notSupported(`${argument}.kind ${kind}`, 'this service has no accelerator: see mooncake-ts doctor');
    }
    if (kind === 'cuda-ipc') return this.#device(argument, given);
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

  #map(argument: string, given: Fields, pid: number, source: MemorySource): ArrayBuffer {
    const { ticket } = given;
    if (!(ticket instanceof Uint8Array) || ticket.length !== TICKET_BYTES) {
      throw errors.invalidArgument(`${argument}.ticket`, ticket, `binary of ${TICKET_BYTES} bytes`);
    }
    const offset = count(`${argument}.offset`, given.offset ?? 0);
    const length = count(`${argument}.length`, given.length);
    try {
      return source.socket.take(ticket, pid, offset, length);
    } catch (error) {
      throw refusal(argument, length, error as Error & { code?: number });
    }
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
