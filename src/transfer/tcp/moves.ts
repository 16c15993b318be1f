/**
 * Moves that this side asked for. A batch travels in parts of bounded size, two at a time; each part is a request of its
 * own, ended by `done` or `failure`. A read that is given up is forgotten by its caller at once and its late data dropped;
 * a write that is given up waits until the peer says that it writes no more.
 */
import { allocateDescriptors, DESCRIPTOR_BYTES, Descriptors } from '../../core/descriptors.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { TransferCore } from '../base.js';
import { watch } from '../limits.js';
import type { Move } from '../move-options.js';
import { Ranges, totalBytes } from '../ranges.js';
import { hold } from '../segments.js';
import type { MoveReport } from '../transfer.js';
import { FRAME, type Header, MAX_MOVES, PART_RECORDS, SUM_DATA } from './frames.js';
import { Incoming } from './incoming.js';
import type { Output, OutStream } from './output.js';

/** Parts of one batch under way: one being moved, and one whose request is at the peer meanwhile. */
const WINDOW = 2;
const MAX_BATCHES = MAX_MOVES / WINDOW;
const GRACE_STEPS = 10;

type Kind = 'read' | 'write';

/** What the moves need of their connection. */
export interface MoveLink {
  readonly core: TransferCore;
  readonly output: Output;
  readonly address: string;
  /** The largest control frame that the peer takes, in bytes. */
  readonly peerFrameBytes: number;
  /** How long a peer may take to say that it has given up a write, in milliseconds. */
  readonly graceMs: number;
  nextId(): number;
  /** Ends the connection. */
  fail(error: MooncakeError): void;
}

interface Part {
  readonly batch: Batch;
  /** Its first record in the batch. */
  readonly from: number;
  /** Of a read. */
  readonly incoming?: Incoming;
  /** Of a write. */
  readonly stream?: OutStream;
}

interface Batch {
  readonly kind: Kind;
  readonly move: Move;
  readonly ranges: Ranges;
  /** First record of the next part. */
  next: number;
  /** Parts that the peer has not ended. */
  readonly open: Map<number, Part>;
  /** Why it has failed, if it has. */
  error?: MooncakeError;
  /** Settles the caller's promise. */
  settle(error?: MooncakeError): void;
  grace?: NodeJS.Timeout;
}

export class Moves {
  readonly #link: MoveLink;
  readonly #batches = new Set<Batch>();
  /** Every part that the peer has not ended, also of batches that were given up. */
  readonly #parts = new Map<number, Part>();

  constructor(link: MoveLink) {
    this.#link = link;
  }

  run(kind: Kind, move: Move): Promise<MoveReport> {
    const started = performance.now();
    const { core, address, output } = this.#link;
    const { descriptors, verify, limits } = move;
    const bytes = totalBytes(descriptors);
    const ranges = new Ranges(descriptors, kind === 'read' ? 'destination' : 'source', core.segments);
    if (this.#batches.size >= MAX_BATCHES) throw errors.queueFull(MAX_BATCHES);
    output.checkRoom();
    const release = hold(ranges.segments);
    return new Promise((resolve, reject) => {
      const batch: Batch = {
        kind,
        move,
        ranges,
        next: 0,
        open: new Map(),
        settle: (error) => {
          if (!this.#batches.delete(batch)) return;
          stop();
          clearTimeout(batch.grace);
          release();
          if (error) reject(error);
          else resolve({ bytes, verifiedBytes: verify ? bytes : 0, milliseconds: performance.now() - started });
        },
      };
      const stop = watch(`${kind} at ${address}`, limits, (error) => this.#fail(batch, error));
      this.#batches.add(batch);
      this.#advance(batch);
    });
  }

  #advance(batch: Batch): void {
    const { count } = batch.ranges;
    const most = Math.min(PART_RECORDS, Math.floor(this.#link.peerFrameBytes / DESCRIPTOR_BYTES) - 1);
    while (!batch.error && batch.next < count && batch.open.size < WINDOW) {
      const from = batch.next;
      batch.next = Math.min(count, from + most);
      this.#start(batch, from, batch.next);
    }
    if (!batch.error && batch.next === count && batch.open.size === 0) batch.settle();
  }

  #start(batch: Batch, from: number, to: number): void {
    const { output } = this.#link;
    const { kind, move, ranges } = batch;
    const id = this.#link.nextId();
    const request = slice(move.descriptors, from, to);
    const left = totalBytes(request);
    const sums = move.verify;
    let part: Part;
    if (kind === 'read') {
      // The peer's `done` ends the part, so that the id is free only when nothing more can come for it.
      const events = { done() {}, failed: (error: unknown) => this.#fail(batch, error as MooncakeError) };
      part = { batch, from, incoming: new Incoming(left, sums, events, ranges, from, to) };
    } else {
      const failed = (error: unknown) => this.#fail(batch, error as MooncakeError);
      const cursor = ranges.cursor(from, to);
      // However the batch ends, the segments are held until the socket is done with them.
      const flushed = hold(ranges.segments);
      const stream = {
        type: FRAME.writeData,
        id,
        cursor,
        sums,
        left,
        next: 0,
        queued: 0,
        handed() {},
        flushed,
        failed,
      };
      part = { batch, from, stream };
    }
    batch.open.set(id, part);
    this.#parts.set(id, part);
    output.send(FRAME[kind], id, request.bytes, sums ? SUM_DATA : 0, move.limits.timeoutMs);
    if (part.stream) output.stream(part.stream);
  }

  /** Gives a batch up: on our side at once, and the peer is told. */
  #fail(batch: Batch, error: MooncakeError): void {
    if (batch.error || !this.#batches.has(batch)) return;
    batch.error = error;
    for (const [id, { incoming, stream }] of batch.open) {
      incoming?.drop();
      if (stream) this.#link.output.drop(stream);
      this.#link.output.send(FRAME.cancel, id);
    }
    if (batch.kind === 'read' || batch.open.size === 0) {
      batch.settle(error);
      return;
    }
    const { address, graceMs, fail } = this.#link;
    // In steps, so that what waits unsent and unread while our event loop is held up does not count against the peer.
    const wait = (steps: number) => {
      batch.grace = setTimeout(() => {
        if (steps > 1) wait(steps - 1);
        else fail(errors.peer(address, `no end of a write within ${graceMs} ms`));
      }, graceMs / GRACE_STEPS);
    };
    wait(GRACE_STEPS);
  }

  /** Where a piece of a read goes. Throws ERR_PROTOCOL. */
  data(header: Header): Incoming {
    const incoming = this.#parts.get(header.id)?.incoming;
    if (!incoming) throw errors.protocol('data of a read that nobody asked for', header);
    return incoming.begin(header);
  }

  /** The peer has ended a part, with or without an error. False: it is none of ours. Throws ERR_PROTOCOL. */
  ended(id: number, error?: MooncakeError): boolean {
    const part = this.#parts.get(id);
    if (!part) return false;
    const { batch, incoming, stream } = part;
    if (!error && !batch.error && (incoming ?? stream)!.left > 0) {
      throw errors.protocol('the end of a move before its data', id);
    }
    this.#parts.delete(id);
    batch.open.delete(id);
    if (error && stream && stream.left > 0) {
      // The peer drops what we sent until it hears that no more comes.
      this.#link.output.drop(stream);
      this.#link.output.send(FRAME.cancel, id);
    }
    if (error) incoming?.drop();
    if (batch.error) {
      if (batch.open.size === 0) batch.settle(batch.error);
    } else if (error) this.#fail(batch, renumber(error, part.from));
    else this.#advance(batch);
    return true;
  }

  /** The connection has ended: so has every move. */
  end(error: MooncakeError): void {
    for (const { incoming } of this.#parts.values()) incoming?.drop();
    this.#parts.clear();
    for (const batch of [...this.#batches]) batch.settle(batch.error ?? error);
  }
}

/** The peer counts the records of a part; the caller those of the batch. */
function renumber(error: MooncakeError, from: number): MooncakeError {
  const { argument, message, code } = error;
  const index = /^descriptors\[(\d+)\]/.exec(argument ?? '');
  if (!index || from === 0) return error;
  const renumbered = (text: string) => text.replace(index[0], `descriptors[${Number(index[1]) + from}]`);
  return new MooncakeError(code, renumbered(message), { argument: renumbered(argument!) });
}

/** A batch of the records from `from` to `to`; the batch itself where these are all. */
function slice(descriptors: Descriptors, from: number, to: number): Descriptors {
  if (from === 0 && to === descriptors.count) return descriptors;
  const bytes = allocateDescriptors(to - from);
  bytes.set(descriptors.records.subarray(from * DESCRIPTOR_BYTES, to * DESCRIPTOR_BYTES), DESCRIPTOR_BYTES);
  return new Descriptors(bytes);
}
