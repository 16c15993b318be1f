/**
 * Moves that the peer asked for. Its descriptors are checked against our segments before a byte moves; a move that fails
 * is answered, and the data that still comes for it is dropped until the peer has stopped.
 */
import { Descriptors } from '../../core/descriptors.js';
import { errors, type MooncakeError } from '../../core/errors.js';
import { MAX_TIMEOUT_MS, watch } from '../limits.js';
import { packFailure } from '../messages.js';
import { Ranges, totalBytes } from '../ranges.js';
import { hold } from '../segments.js';
import { FRAME, type Header, MAX_MOVES, PART_RECORDS, SUM_DATA } from './frames.js';
import { Incoming } from './incoming.js';
import type { MoveLink } from './moves.js';
import type { OutStream } from './output.js';

interface Served {
  /** Of a write. */
  incoming?: Incoming;
  /** Ends it with an error that the peer is told; of a write that has failed already, forgets it. */
  fail(error: unknown): void;
  /** Ends it without a word. */
  end(): void;
}

export class Serving {
  readonly #link: MoveLink;
  readonly #moves = new Map<number, Served>();

  constructor(link: MoveLink) {
    this.#link = link;
  }

  has(id: number): boolean {
    return this.#moves.has(id);
  }

  /** Serves a read. Throws ERR_PROTOCOL. */
  read(header: Header, payload: Uint8Array): void {
    const { id } = header;
    const { core, output } = this.#link;
    const descriptors = readDescriptors(payload);
    let ranges: Ranges;
    let left: number;
    try {
      this.#checkRoom();
      ranges = new Ranges(descriptors, 'source', core.segments);
      left = totalBytes(descriptors);
    } catch (error) {
      output.send(FRAME.failure, id, packFailure(error));
      return;
    }
    const finish = this.#start(header, ranges, (error) => {
      if (error === undefined) return;
      output.drop(stream);
      output.send(FRAME.failure, id, packFailure(error));
    });
    const stream: OutStream = {
      type: FRAME.readData,
      id,
      cursor: ranges.cursor(),
      sums: (header.flags & SUM_DATA) !== 0,
      left,
      next: 0,
      queued: 0,
      handed: () => {
        finish.end();
        output.send(FRAME.done, id);
      },
      // However the move ends, the segments are held until the socket is done with them.
      flushed: hold(ranges.segments),
      failed: finish.fail,
    };
    this.#moves.set(id, finish);
    output.stream(stream);
  }

  /** Serves a write. Throws ERR_PROTOCOL. */
  write(header: Header, payload: Uint8Array): void {
    const { id } = header;
    const { core, output } = this.#link;
    if (this.#moves.size >= 2 * MAX_MOVES)
      throw errors.protocol('more moves than a peer of ours has', this.#moves.size);
    const descriptors = readDescriptors(payload);
    const sums = (header.flags & SUM_DATA) !== 0;
    const left = descriptors.totalBytes;
    if (!Number.isSafeInteger(left)) throw errors.protocol('a write of more bytes than there are', left);
    // Refused or failed: the data that is on its way must be taken, and dropped, until its end or the peer's cancel.
    const drain = (incoming: Incoming, error: unknown) => {
      output.send(FRAME.failure, id, packFailure(error));
      incoming.drop();
      const forget = () => this.#moves.delete(id);
      if (incoming.left > 0) this.#moves.set(id, { incoming, fail: forget, end: forget });
      else forget();
    };
    let ranges: Ranges;
    try {
      this.#checkRoom();
      ranges = new Ranges(descriptors, 'destination', core.segments, { peerWrites: true });
    } catch (error) {
      drain(new Incoming(left, sums, { done() {}, failed() {} }), error);
      return;
    }
    const finish = this.#start(header, ranges, (error) => {
      this.#moves.delete(id);
      if (error !== undefined) drain(incoming, error);
    });
    const done = () => {
      finish.end();
      output.send(FRAME.done, id);
    };
    const incoming = new Incoming(left, sums, { done, failed: finish.fail }, ranges);
    this.#moves.set(id, { incoming, ...finish });
    if (left === 0) done();
  }

  #checkRoom(): void {
    if (this.#moves.size >= MAX_MOVES) throw errors.queueFull(MAX_MOVES);
  }

  /** Holds the segments and watches the peer's deadline, until it ends: `ended` is called once. */
  #start(header: Header, ranges: Ranges, ended: (error?: unknown) => void): Served {
    const release = hold(ranges.segments);
    let over = false;
    const finish = (error?: unknown) => {
      if (over) return;
      over = true;
      stop();
      this.#moves.delete(header.id);
      release();
      ended(error);
    };
    const timeoutMs = Math.max(1, Math.min(header.value, MAX_TIMEOUT_MS));
    const stop = watch(`a move for ${this.#link.address}`, { timeoutMs }, finish);
    return { fail: finish, end: () => finish() };
  }

  /** Where a piece of a write goes. Throws ERR_PROTOCOL. */
  data(header: Header): Incoming {
    const incoming = this.#moves.get(header.id)?.incoming;
    if (!incoming) throw errors.protocol('data of a write that was not announced', header);
    incoming.begin(header);
    // A write that has failed needs its id no longer once its last piece is on its way to nowhere.
    if (incoming.dropping && incoming.left === 0) this.#moves.delete(header.id);
    return incoming;
  }

  cancel(id: number, error: MooncakeError): void {
    this.#moves.get(id)?.fail(error);
  }

  /** The connection has ended. */
  end(): void {
    for (const served of [...this.#moves.values()]) served.end();
  }
}

function readDescriptors(payload: Uint8Array): Descriptors {
  let descriptors: Descriptors;
  try {
    descriptors = new Descriptors(payload);
  } catch (error) {
    throw errors.protocol((error as Error).message);
  }
  if (descriptors.count > PART_RECORDS) throw errors.protocol('too many records in one frame', descriptors.count);
  return descriptors;
}
