/**
 * Bytes of objects that lie with peers. One batch goes to each peer; objects whose peer fails are read from their next copy.
 * Whole values come in pieces: straight into memory that is registered or new, otherwise through windows of staging
 * memory, from where they are copied and summed while the next are on their way.
 */
import { errors } from '../core/errors.js';
import type { Replica } from '../master/api.js';
import type { CallLimits } from '../transfer/transfer.js';
import type { Limits, UnderWay } from './batch.js';
import type { StoreContext } from './context.js';
import { Coverage, type Run } from './coverage.js';
import { type FoundObject, failure } from './found.js';
import { Group, MOVES } from './group.js';
import { sumOf } from './memory.js';
import { Moves } from './moves.js';
import type { Session } from './session.js';
import type { Window } from './staging.js';
import { Tasks } from './tasks.js';

/** Memory that a value is read into or written from; where it is registered, its segment and the place in it. */
export interface ValueMemory {
  readonly bytes: Uint8Array;
  readonly segment?: number;
  readonly at?: number;
}

export interface FarRead {
  readonly object: FoundObject;
  readonly target: ValueMemory;
  /** Nobody has the memory but us, and nobody has touched it lately. */
  readonly fresh: boolean;
}

/** New memory of at least so many bytes is registered for the call: below, a window is cheaper. */
const DIRECT_BYTES = 2 ** 18;

interface Piece {
  readonly object: FoundObject;
  readonly offset: number;
  readonly length: number;
  /** Where it arrives. */
  readonly segment: number;
  readonly at: number;
  readonly target: Uint8Array;
  readonly fresh: boolean;
}

export class FarReads {
  readonly #context: StoreContext;
  readonly #session: Session;
  readonly #underWay: UnderWay;
  readonly #pause: (limits: Limits) => Promise<void>;

  /** `underWay` ends all moves. `pause` lets others have their turn. */
  constructor(context: StoreContext, session: Session, underWay: UnderWay, pause: (limits: Limits) => Promise<void>) {
    this.#context = context;
    this.#session = session;
    this.#underWay = underWay;
    this.#pause = pause;
  }

  /** Reads the first bytes of objects, as many as their targets have. A copy that is corrupt gives way to the next. */
  async fill(reads: readonly FarRead[], limits: Limits): Promise<void> {
    for (let left = reads; left.length > 0; ) {
      for (const { object, target } of left) object.wanted += target.bytes.length;
      await this.#fill(left, limits);
      left = await this.#corrupt(left, limits);
    }
  }

  async #fill(reads: readonly FarRead[], limits: Limits): Promise<void> {
    const { staging, transfer } = this.#context;
    const tasks = new Tasks(MOVES);
    const borrowed: number[] = [];
    let direct = new Group<Piece>();
    let staged: Group<Piece> | undefined;
    const start = async (group: Group<Piece>) => {
      const started = group.pieces.length > 0 && (await tasks.start(() => this.#move(group, limits)));
      if (!started) group.window?.release();
    };
    try {
      for (const { object, target, fresh } of reads) {
        const { bytes } = target;
        if (bytes.length === 0) continue;
        const isDirect =
          target.segment !== undefined || staging === undefined || (fresh && bytes.length >= DIRECT_BYTES);
        let { segment, at: base = 0 } = target;
        if (isDirect && segment === undefined) {
          segment = staging ? staging.borrow(bytes) : transfer.register(bytes);
          borrowed.push(segment);
        }
        for (let offset = 0; offset < bytes.length; ) {
          if (segment !== undefined) {
            const length = Math.min(direct.room, bytes.length - offset);
            const piece = bytes.subarray(offset, offset + length);
            direct.add({ object, offset, length, segment, at: base + offset, target: piece, fresh }, length);
            offset += length;
            if (!direct.isFull) continue;
            const full = direct;
            direct = new Group();
            await start(full);
          } else if (staging) {
            staged ??= new Group(await staging.take(limits));
            const length = Math.min(staged.room, bytes.length - offset);
            const piece = bytes.subarray(offset, offset + length);
            const { segment: into, offset: from } = staged.window as Window;
            const place = { segment: into, at: from + staged.next };
            staged.add({ object, offset, length, ...place, target: piece, fresh }, length);
            offset += length;
            if (!staged.isFull) continue;
            const full = staged;
            staged = undefined;
            await start(full);
          }
        }
      }
      await start(direct);
      if (staged) await start(staged);
      staged = undefined;
    } finally {
      staged?.window?.release();
      await tasks.ended().finally(() => Promise.all(borrowed.map((segment) => transfer.unregister(segment))));
    }
  }

  /** Objects that are not what was put are read again from their next copies, where they have one. */
  async #corrupt(reads: readonly FarRead[], limits: Limits): Promise<FarRead[]> {
    const again: FarRead[] = [];
    for (const read of reads) {
      const { object } = read;
      const { checksum, coverage, size, miss } = object;
      if (!this.#context.verify || miss !== undefined || checksum === undefined) continue;
      if (coverage.bytes !== size || coverage.digest() === checksum || object.others.length === 0) continue;
      if (!(await this.#next(object, object.place.peer, limits))) continue;
      object.coverage = new Coverage();
      object.wanted = 0;
      again.push(read);
    }
    return again;
  }

  async #move(group: Group<Piece>, limits: Limits): Promise<void> {
    const { window, pieces } = group;
    try {
      const objects = new Set(pieces.map(({ object }) => object));
      await this.receive(objects, limits, (moves, isWanted) => {
        for (const { object, offset, length, segment, at } of pieces) {
          const { place } = object;
          if (place.peer && isWanted(object))
            moves.of(place.peer).push(place.segment, place.offset + offset, segment, at, length);
        }
      });
      for (const piece of pieces) {
        if (piece.object.miss !== undefined) continue;
        if (this.#context.pacer.full) await this.#pause(limits);
        this.#take(piece, window);
      }
    } finally {
      window?.release();
    }
  }

  #take({ object, offset, length, at, target, fresh }: Piece, window: Window | undefined): void {
    if (target.length !== length) throw errors.segment('into', length, 'its memory was detached or resized');
    if (!window) {
      this.arrived(object, offset, target);
      return;
    }
    const run = this.#cover(object, offset, length);
    if (this.#context.verify) run.crc = window.memory.copyOut(at, target, run.crc, fresh);
    else window.memory.read(at, target, fresh);
    this.#keep(object, offset, target);
  }

  /** A piece that a peer has sent into the caller's memory: it is summed there. */
  arrived(object: FoundObject, offset: number, target: Uint8Array): void {
    const run = this.#cover(object, offset, target.length);
    if (this.#context.verify) run.crc = sumOf(target, run.crc);
    this.#keep(object, offset, target);
  }

  #cover(object: FoundObject, offset: number, length: number): Run {
    const run = object.coverage.add(offset, length);
    this.#context.pacer.spend(length);
    if (run) return run;
    throw errors.invalidArgument('descriptors', `bytes ${offset} to ${offset + length} of an object`, 'read once');
  }

  #keep(object: FoundObject, offset: number, bytes: Uint8Array): void {
    const { hotCache } = this.#context;
    if (!hotCache?.takes(object.size) || object.checksum === undefined) return;
    object.copy ??= new Uint8Array(object.size);
    object.copy.set(bytes, offset);
  }

  /**
   * Reads pieces of objects from the peers where they lie. `plan` adds those of the objects that are wanted, anew for
   * every copy that is tried. What the cluster does to it makes misses. The transport need not sum what will be compared
   * with the objects' own checksums.
   */
  async receive(
    objects: ReadonlySet<FoundObject>,
    limits: Limits,
    plan: (moves: Moves, isWanted: (object: FoundObject) => boolean) => void,
  ): Promise<void> {
    let left = new Set([...objects].filter(({ place, miss }) => place.peer !== undefined && miss === undefined));
    while (left.size > 0) {
      const wanted = left;
      const from = new Map([...left].map((object) => [object, object.place.peer]));
      const moves = new Moves();
      plan(moves, (object) => wanted.has(object));
      const failures = await this.#read(moves, wanted, limits);
      left = new Set();
      for (const object of wanted) {
        const peer = from.get(object);
        if (peer === undefined || !failures.has(peer)) continue;
        const error = failures.get(peer);
        const reason = failure(error);
        if (reason === undefined) throw error;
        if (await this.#next(object, peer, limits)) left.add(object);
        else object.miss ??= reason;
      }
    }
  }

  #read(moves: Moves, objects: ReadonlySet<FoundObject>, limits: Limits): Promise<Map<unknown, unknown>> {
    const all = [...objects];
    const isWhole = ({ checksum, wanted, size }: FoundObject) => checksum !== undefined && wanted === size;
    const verify = this.#context.verify && all.every(isWhole) ? 'off' : undefined;
    // Where there is another copy, a peer that hangs does not get all the time that there is.
    const hasNext = all.some(({ others }) => others.length > 0);
    const now = this.#session.now();
    const leaseMs = all.reduce((most, { expires }) => Math.max(most, expires - now), 1);
    return limits.move(this.#underWay.signal, ({ signal, timeoutMs = 1 }: CallLimits) => {
      const rest = {
        signal,
        timeoutMs: hasNext ? Math.ceil(Math.min(timeoutMs, leaseMs) / 2) : timeoutMs,
        verify,
      } as const;
      return moves.run((peer, descriptors) => peer.read(descriptors, rest));
    });
  }

  /** Turns to the next copy of an object, unless another move has done so since it was read from this peer. False: there is none. */
  async #next(object: FoundObject, peer: FoundObject['place']['peer'], limits: Limits): Promise<boolean> {
    while (object.turning) await object.turning;
    if (object.place.peer !== peer) return object.miss === undefined;
    object.turning = this.#turn(object, limits).finally(() => {
      object.turning = undefined;
    });
    return object.turning;
  }

  async #turn(object: FoundObject, limits: Limits): Promise<boolean> {
    while (object.others.length > 0) {
      const [next, ...others]: readonly Replica[] = object.others;
      object.others = others;
      try {
        const place = await limits.within(this.#session.place(next));
        // Copies of this process come first: one that appears now would have been read before.
        if (place.peer === undefined) continue;
        object.place = place;
        return true;
      } catch (error) {
        if (failure(error) === undefined) throw error;
      }
    }
    return false;
  }
}
