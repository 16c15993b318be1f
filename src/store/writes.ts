/**
 * Bytes on their way into objects: each piece is summed from the caller's side, copied to the copies in this process and sent to
 * those with peers, one batch to each. Whole values for peers come in pieces: from memory that is registered straight, from
 * other memory through windows of staging memory, copied and summed while the one before is on its way.
 */
import { errors, MooncakeError } from '../core/errors.js';
import type { Peer } from '../transfer/transfer.js';
import type { Limits, UnderWay } from './batch.js';
import type { StoreContext } from './context.js';
import type { Copies } from './copies.js';
import type { Coverage, Run } from './coverage.js';
import type { ValueMemory } from './far-reads.js';
import { Group, MOVES } from './group.js';
import { sumOf } from './memory.js';
import { Moves } from './moves.js';
import type { Place, Session } from './session.js';
import type { Window } from './staging.js';
import { Tasks } from './tasks.js';

export interface OpenObject {
  /** In its batch. */
  readonly index: number;
  /** Its key in the client's claims. */
  readonly name: string;
  readonly size: number;
  readonly places: Place[];
  readonly coverage: Coverage;
  /** Its bytes are unknown: what a write to it failed with. */
  failure: unknown;
  /** Bytes of that write may still land: its room must not be given away yet. */
  mayLand: boolean;
}

export interface FarWrite {
  readonly object: OpenObject;
  /** The value is their concatenation. */
  readonly parts: readonly ValueMemory[];
}

/** Where peers' copies of a piece are sent from; `memory`: the piece is not there yet. */
interface Origin {
  readonly segment: number;
  readonly at: number;
  readonly window?: Window;
}

/** Pieces that are summed when they are on their way: the caller leaves them as they are till then. */
interface Unsummed {
  later(run: Run, piece: Uint8Array): void;
}

/** Pieces of the objects that it holds, as moves. */
class Sending extends Group<OpenObject> implements Unsummed {
  readonly moves = new Moves();
  #unsummed: [Run, Uint8Array][] = [];

  later(run: Run, piece: Uint8Array): void {
    this.#unsummed.push([run, piece]);
  }

  sum(): void {
    for (const [run, piece] of this.#unsummed.splice(0)) run.crc = sumOf(piece, run.crc);
  }
}

export class Writes {
  readonly #context: StoreContext;
  readonly #session: Session;
  readonly #latest: number;
  readonly #underWay: UnderWay;
  readonly #pause: (limits: Limits) => Promise<void>;

  /**
   * `latest`, by the session's clock: later writes must not land in room of somebody else. `underWay` ends all moves. `pause`
   * lets others have their turn.
   */
  constructor(
    context: StoreContext,
    session: Session,
    latest: number,
    underWay: UnderWay,
    pause: (limits: Limits) => Promise<void>,
  ) {
    this.#context = context;
    this.#session = session;
    this.#latest = latest;
    this.#underWay = underWay;
    this.#pause = pause;
  }

  /**
   * One piece: summed, copied to places in this process and to its window, noted in `moves` for places elsewhere. With `gathered`,
   * sum and copies are made when those are; with `unsummed`, the sum of what is not copied.
   */
  take(
    object: OpenObject,
    offset: number,
    piece: Uint8Array,
    { segment, at, window }: Origin,
    moves: Moves,
    { gathered, unsummed }: { gathered?: Copies; unsummed?: Unsummed } = {},
  ): void {
    this.#left();
    const { checksum, pacer } = this.#context;
    const run = object.coverage.add(offset, piece.length);
    if (run === undefined) {
      const range = `bytes ${offset} to ${offset + piece.length} of object ${object.index}`;
      throw errors.invalidArgument('descriptors', range, 'written once');
    }
    let summed = !checksum;
    const copies = object.places.flatMap(({ memory, offset: base }) => (memory ? { memory, at: base + offset } : []));
    for (const copy of copies) {
      if (copy.memory.retired) throw errors.segment('segment', object.index, 'was taken away during the put');
    }
    for (const copy of window ? [{ memory: window.memory, at }, ...copies] : copies) {
      const place = gathered && copy.memory.range(copy.at, piece.length);
      if (place) gathered.add(place, piece, summed ? undefined : run);
      else if (summed) copy.memory.write(copy.at, piece);
      else run.crc = copy.memory.copyIn(copy.at, piece, run.crc);
      summed = true;
    }
    if (!summed) unsummed ? unsummed.later(run, piece) : (run.crc = sumOf(piece, run.crc));
    for (const place of object.places) {
      if (place.peer) moves.of(place.peer).push(segment, at, place.segment, place.offset + offset, piece.length);
    }
    pacer.spend(piece.length);
  }

  /** Sends what was noted. Objects with a peer that fails fail with it; throws what is the caller's own doing. */
  async send(moves: Moves, objects: Iterable<OpenObject>, limits: Limits): Promise<void> {
    if (moves.empty) return;
    const left = this.#left();
    const failures = await limits.move(this.#underWay.signal, ({ signal, timeoutMs = left }) => {
      const rest = { signal, timeoutMs: Math.min(timeoutMs, Math.ceil(left)) };
      // Bytes that cross no network are what was summed on the way in, and are compared by whoever reads them.
      const { checksum } = this.#context;
      const options = (peer: Peer) => (checksum && peer.isNear ? ({ ...rest, verify: 'off' } as const) : rest);
      return moves.run((peer, descriptors) => peer.write(descriptors, options(peer)));
    });
    if (failures.size === 0) return;
    const { reason } = this.#underWay.signal;
    for (const object of objects) {
      const failure = failureOf(object, failures);
      if (failure === undefined) continue;
      object.failure ??= reason instanceof MooncakeError ? reason : failure;
      object.mayLand ||= this.#session.mayLand?.(failure) ?? false;
    }
  }

  /** Writes whole objects. What goes wrong with one is in its `failure`. */
  async fill(writes: readonly FarWrite[], limits: Limits): Promise<void> {
    const tasks = new Tasks(MOVES);
    const borrowed: number[] = [];
    const groups: { direct: Sending; staged: Sending | undefined } = { direct: new Sending(), staged: undefined };
    const start = async (group: Sending) => {
      const send = () => this.send(group.moves, group.pieces, limits).finally(() => group.window?.release());
      const started = group.pieces.length > 0 && tasks.start(send);
      group.sum();
      if (!(await started)) group.window?.release();
    };
    const write = async (object: OpenObject, parts: readonly ValueMemory[]) => {
      let offset = 0;
      for (const { bytes, segment, at } of parts) {
        const end = offset + bytes.length;
        // Memory that can be resized may have grown since; what lies behind the object is another's.
        if (end > object.size) throw errors.invalidArgument('value', end, `the ${object.size} bytes that it had`);
        if (bytes.length === 0 || object.failure !== undefined) continue;
        if (segment !== undefined) await this.#direct(object, offset, bytes, segment, at ?? 0, groups, limits, start);
        else if (this.#context.staging) {
          // What is summed in one step with its copy continues the sum of what comes before it.
          groups.direct.sum();
          await this.#staged(object, offset, bytes, groups, limits, start);
        } else {
          const own = this.#context.transfer.register(bytes, { access: 'read' });
          borrowed.push(own);
          await this.#direct(object, offset, bytes, own, 0, groups, limits, start);
        }
        offset = end;
      }
    };
    try {
      for (const { object, parts } of writes) {
        try {
          await write(object, parts);
        } catch (error) {
          limits.check();
          object.failure ??= error;
        }
      }
      await start(groups.direct);
      if (groups.staged) await start(groups.staged);
      groups.staged = undefined;
    } finally {
      groups.staged?.window?.release();
      const { transfer } = this.#context;
      await tasks.ended().finally(() => Promise.all(borrowed.map((segment) => transfer.unregister(segment))));
    }
  }

  async #direct(
    object: OpenObject,
    offset: number,
    bytes: Uint8Array,
    segment: number,
    base: number,
    groups: { direct: Sending },
    limits: Limits,
    start: (group: Sending) => Promise<void>,
  ): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      if (this.#context.pacer.full) await this.#pause(limits);
      const group = groups.direct;
      const piece = bytes.subarray(at, at + group.room);
      if (piece.length === 0) throw errors.segment('value', bytes.length, 'its memory was detached or resized');
      this.take(object, offset + at, piece, { segment, at: base + at }, group.moves, { unsummed: group });
      group.add(object, piece.length);
      at += piece.length;
      if (!group.isFull) continue;
      groups.direct = new Sending();
      await start(group);
    }
  }

  async #staged(
    object: OpenObject,
    offset: number,
    bytes: Uint8Array,
    groups: { staged: Sending | undefined },
    limits: Limits,
    start: (group: Sending) => Promise<void>,
  ): Promise<void> {
    const { staging, pacer } = this.#context;
    const { length } = bytes;
    for (let at = 0; staging && at < length; ) {
      if (pacer.full) await this.#pause(limits);
      groups.staged ??= new Sending(await staging.take(limits));
      const group = groups.staged;
      const window = group.window as Window;
      const piece = bytes.subarray(at, at + group.room);
      if (piece.length === 0) throw errors.segment('value', length, 'its memory was detached or resized');
      this.take(
        object,
        offset + at,
        piece,
        { segment: window.segment, at: window.offset + group.next, window },
        group.moves,
      );
      group.add(object, piece.length);
      at += piece.length;
      if (!group.isFull) continue;
      groups.staged = undefined;
      await start(group);
    }
  }

  /** Milliseconds in which writes must have ended. Throws ERR_TIMEOUT where there are none. */
  #left(): number {
    const left = this.#latest - this.#session.now();
    if (left <= 0) throw errors.timeout('a put', this.#session.putWindowMs);
    return left;
  }
}

/** What the peer of one of its copies failed with. */
function failureOf({ places }: OpenObject, failures: ReadonlyMap<Peer, unknown>): unknown {
  for (const { peer } of places) if (peer && failures.has(peer)) return failures.get(peer);
  return undefined;
}
