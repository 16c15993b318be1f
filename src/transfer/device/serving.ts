/**
 * Memory of this side's GPUs as peers reach it: by windows of pinned memory that they read and write as any segment, and ask to be
 * filled from a GPU or put down there. A window is one peer's at a time, and no peer has all of them. What it held and did not give back (it died, it gave
 * up, it took too long) is taken away whole and made anew: nothing that still arrives for the one lands in another.
 */
import { Descriptors } from '../../core/descriptors.js';
import { errors } from '../../core/errors.js';
import { DescriptorList } from '../descriptor-list.js';
import type { Limits } from '../limits.js';
import type { RequestContext } from '../transfer.js';
import { Turns } from '../turns.js';
import { WINDOW_BYTES, WINDOWS as WINDOWS_OF_ONE, type WindowMemory, waitFor } from './windows.js';

/** The name of the transfer's own service. */
export const DEVICES = 'transfer.devices';
/** Windows of all peers together; one of them has at most as many as it has of its own, so that some are left for others. */
const WINDOWS = 8;
/** How long a peer may keep one. */
const HELD_MS = 60_000;

/** What a request asks; descriptors name the GPU's segment, and 0 for the window. */
export type DeviceRequest =
  | { op: 'fetch'; descriptors: Uint8Array }
  | { op: 'take' }
  | { op: 'land'; window: number; descriptors: Uint8Array }
  | { op: 'release'; window: number }
  /** The move has failed: who knows what still arrives. */
  | { op: 'drop'; window: number };

export interface DeviceAnswer {
  window: number;
  segment: number;
}

export interface ServedDevices {
  /** Whether there is memory of GPUs at all: without it nobody needs a window. */
  any(): boolean;
  /** Throws ERR_SEGMENT where peers may not do that. */
  near(segment: number, writing: boolean): number;
  copy(descriptors: Descriptors, limits: Limits): Promise<unknown>;
  makeWindow(bytes: number): WindowMemory;
  /** Resolves when nobody touches it any more. */
  dropWindow(window: WindowMemory): Promise<void>;
}

type Peer = RequestContext['peer'];

interface Held {
  readonly memory: WindowMemory;
  readonly peer: Peer;
  readonly timer: NodeJS.Timeout;
  /** A copy is under way: it is not given back yet. */
  copying: boolean;
}

export class DeviceServing {
  readonly #devices: ServedDevices;
  /** Free windows; undefined: one that is to be made. */
  readonly #turns = new Turns<WindowMemory | undefined>(new Array(WINDOWS).fill(undefined));
  readonly #held = new Map<number, Held>();
  /** How many more each peer may have. */
  readonly #shares = new WeakMap<Peer, Turns<null>>();
  #next = 1;

  constructor(devices: ServedDevices) {
    this.#devices = devices;
  }

  async answer(message: unknown, { peer, signal }: RequestContext): Promise<DeviceAnswer | null> {
    const request = (message ?? {}) as Partial<DeviceRequest> & { window?: unknown };
    const limits = { signal, timeoutMs: HELD_MS };
    switch (request.op) {
      case 'take':
        return this.#take(peer, limits);
      case 'fetch': {
        const copies = this.#read(request.descriptors, 'sourceSegment');
        const taken = await this.#take(peer, limits);
        await this.#copied(taken.window, copies, limits);
        return taken;
      }
      case 'land': {
        const held = this.#idle(request.window, peer);
        try {
          await this.#copied(held, this.#read(request.descriptors, 'destinationSegment'), limits);
        } finally {
          this.#giveBack(held);
        }
        return null;
      }
      case 'release':
        this.#giveBack(this.#idle(request.window, peer));
        return null;
      case 'drop':
        await this.#drop(this.#find(request.window, peer));
        return null;
      default:
        throw errors.invalidArgument('op', request.op, 'one that memory of GPUs has');
    }
  }

  /** Takes every window away. */
  async close(): Promise<void> {
    await Promise.all([...this.#held.keys()].map((window) => this.#drop(window)));
    while (this.#turns.free > 0) {
      const free = this.#turns.take();
      if (free !== undefined) await this.#devices.dropWindow(free);
    }
  }

  async #take(peer: Peer, limits: Limits): Promise<DeviceAnswer> {
    if (!this.#devices.any())
      throw errors.segment('window', undefined, 'is for memory of GPUs, of which there is none');
    const share = this.#shareOf(peer);
    await waitFor(share, limits);
    let memory: WindowMemory;
    try {
      memory = (await waitFor(this.#turns, limits)) ?? this.#made();
    } catch (error) {
      share.give(null);
      throw error;
    }
    const window = this.#next++;
    const timer = setTimeout(() => void this.#drop(window), HELD_MS).unref();
    this.#held.set(window, { memory, peer, timer, copying: false });
    return { window, segment: memory.far };
  }

  #shareOf(peer: Peer): Turns<null> {
    let share = this.#shares.get(peer);
    if (share === undefined) {
      share = new Turns<null>(new Array(WINDOWS_OF_ONE).fill(null));
      this.#shares.set(peer, share);
      void peer.closed.then(() => this.#left(peer));
    }
    return share;
  }

  /** A new one; where there can be none, its turn is somebody else's. */
  #made(): WindowMemory {
    try {
      return this.#devices.makeWindow(WINDOW_BYTES);
    } catch (error) {
      this.#turns.give(undefined);
      throw error;
    }
  }

  /** Checked, with the window's place still to be filled in. */
  #read(given: Uint8Array | undefined, gpu: 'sourceSegment' | 'destinationSegment'): (window: number) => Descriptors {
    const descriptors = new Descriptors(given ?? new Uint8Array());
    const writing = gpu === 'destinationSegment';
    const near = new Map<number, number>();
    const records = [...descriptors].map((record) => {
      const at = writing ? record.sourceOffset : record.destinationOffset;
      if (!(at + record.length <= WINDOW_BYTES)) {
        throw errors.segment('descriptors', at, `${record.length} bytes leave the window's ${WINDOW_BYTES}`);
      }
      const segment = record[gpu];
      if (!near.has(segment)) near.set(segment, this.#devices.near(segment, writing));
      return { ...record, near: near.get(segment)! };
    });
    return (window) => {
      const list = new DescriptorList();
      for (const { near: device, sourceOffset, destinationOffset, length } of records) {
        if (writing) list.push(window, sourceOffset, device, destinationOffset, length);
        else list.push(device, sourceOffset, window, destinationOffset, length);
      }
      return list.descriptors();
    };
  }

  async #copied(window: number, copies: (window: number) => Descriptors, limits: Limits): Promise<void> {
    const held = this.#held.get(window);
    if (held === undefined) throw errors.closed('the window');
    held.copying = true;
    try {
      await this.#devices.copy(copies(held.memory.near), limits);
    } catch (error) {
      await this.#drop(window);
      throw error;
    } finally {
      held.copying = false;
    }
  }

  /** Throws ERR_SEGMENT where it is not that peer's. */
  #find(window: unknown, peer: Peer): number {
    const held = this.#held.get(window as number);
    if (held?.peer !== peer) throw errors.segment('window', window, 'is not held by this peer, or was taken away');
    return window as number;
  }

  /** The same, and no copy of it is under way: it would go on in the next peer's window. */
  #idle(window: unknown, peer: Peer): number {
    const found = this.#find(window, peer);
    if (this.#held.get(found)?.copying) throw errors.segment('window', window, 'is being copied');
    return found;
  }

  #giveBack(window: number): void {
    const held = this.#held.get(window);
    if (held === undefined) return;
    this.#forget(window, held);
    this.#turns.give(held.memory);
  }

  /** Its room is free when nobody can touch it any more. */
  async #drop(window: number): Promise<void> {
    const held = this.#held.get(window);
    if (held === undefined) return;
    this.#forget(window, held);
    await this.#devices.dropWindow(held.memory).catch(() => {});
    this.#turns.give(undefined);
  }

  #forget(window: number, { peer, timer }: Held): void {
    this.#held.delete(window);
    clearTimeout(timer);
    this.#shares.get(peer)?.give(null);
  }

  #left(peer: Peer): void {
    for (const [window, held] of [...this.#held]) if (held.peer === peer) void this.#drop(window);
  }
}
