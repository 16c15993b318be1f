/**
 * Sends frames. Control frames go to the socket at once; data goes in pieces, one from each stream in turn, and only as
 * long as the socket holds less than a few of them: so a small frame waits behind little, and memory stays bounded.
 * Pieces are views of the registered memory; where ranges are short they are gathered into one buffer first.
 */
import type { Socket } from 'node:net';
import { crc64 } from '../../core/checksum.js';
import { errors, MooncakeError } from '../../core/errors.js';
import type { Cursor } from '../ranges.js';
import { HEADER_BYTES, type Header, PIECE_BYTES, SUMS, writeHeader } from './frames.js';

/** The socket's queue above which no piece is added. */
const HIGH_WATER = 2 * PIECE_BYTES;
/** Data given to the socket before the event loop gets its turn: a kernel that takes all must not starve it. */
const TURN_BYTES = 4 * PIECE_BYTES;
/** Waiting bytes above which requests and answers are refused; twice as many refusals unread end the connection. */
const MAX_QUEUED_BYTES = 64 * 2 ** 20;
/** Ranges shorter than this, on average, are gathered. */
const GATHER_BELOW = 16 * 1024;
const SPARE_BUFFERS = 4;
const EMPTY = new Uint8Array(0);

/** Data of one request on its way out. */
export interface OutStream {
  readonly type: number;
  readonly id: number;
  readonly cursor: Cursor;
  readonly sums: boolean;
  /** Bytes not yet given to the socket. */
  left: number;
  /** Number of the next piece. */
  next: number;
  /** Pieces that the socket still looks at. */
  queued: number;
  /** How long it may do so once nothing is added. */
  stuck?: NodeJS.Timeout;
  /** All was given to the socket: frames sent from here on come after it. */
  handed(): void;
  /** The stream is handed or dropped, and the socket done with it: the memory is no longer looked at. */
  flushed(): void;
  /** The memory is no longer there. The stream has ended. */
  failed(error: unknown): void;
}

export class Output {
  readonly #socket: Socket;
  readonly #fail: (error: Error) => void;
  readonly #stuckMs: number;
  #streams: OutStream[] = [];
  /** Buffers for headers and gathered ranges that the socket is done with. */
  readonly #spare: Uint8Array[] = [];
  #turnBytes = 0;
  #turn?: NodeJS.Immediate;
  #ended = false;
  /** When something was sent last (performance.now). */
  sentAt = performance.now();

  /** `fail` ends the connection: where too much is left unread, or what is left of a stream for longer than `stuckMs`. */
  constructor(socket: Socket, stuckMs: number, fail: (error: Error) => void) {
    this.#socket = socket;
    this.#stuckMs = stuckMs;
    this.#fail = fail;
    // Control frames may have filled the socket while no piece was there whose end would bring the next.
    socket.on('drain', () => this.#pump());
  }

  /** Throws ERR_QUEUE_FULL where the peer leaves so much unread that nothing large should be added. */
  checkRoom(): void {
    const { writableLength } = this.#socket;
    if (writableLength <= MAX_QUEUED_BYTES) return;
    const message = `${writableLength} bytes wait for the peer to read, more than ${MAX_QUEUED_BYTES}`;
    throw new MooncakeError('ERR_QUEUE_FULL', message, { argument: 'peer', value: writableLength });
  }

  /** Sends bytes that are no frame. */
  raw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Sends a control frame. The payload must not change any more. */
  send(type: number, id = 0, payload: Uint8Array = EMPTY, flags = 0, value = 0): void {
    if (this.#ended) return;
    const socket = this.#socket;
    if (socket.writableLength > 2 * MAX_QUEUED_BYTES) {
      this.#fail(errors.protocol(`the peer leaves ${socket.writableLength} bytes unread`));
      return;
    }
    const sum = payload.length > 0 ? crc64(payload) : 0n;
    const head = new Uint8Array(HEADER_BYTES);
    writeHeader(head, { length: payload.length, type, flags: flags | (payload.length > 0 ? SUMS : 0), id, value, sum });
    this.sentAt = performance.now();
    if (payload.length === 0) {
      socket.write(head);
      return;
    }
    socket.cork();
    socket.write(head);
    socket.write(payload);
    socket.uncork();
  }

  stream(stream: OutStream): void {
    if (stream.left > 0) {
      this.#streams.push(stream);
      this.#pump();
      return;
    }
    stream.handed();
    this.#over(stream);
  }

  /** Sends no more of a stream. */
  drop(stream: OutStream): void {
    this.#streams = this.#streams.filter((other) => other !== stream);
    stream.left = 0;
    this.#over(stream);
  }

  /** No piece of the stream will be added. */
  #over(stream: OutStream): void {
    if (stream.queued === 0) {
      clearTimeout(stream.stuck);
      stream.flushed();
      return;
    }
    const why = 'the peer to read what is left of a move';
    stream.stuck ??= setTimeout(() => this.#fail(errors.timeout(why, this.#stuckMs)), this.#stuckMs);
  }

  /** Ends all streams without a word. */
  end(): void {
    this.#ended = true;
    const streams = this.#streams;
    this.#streams = [];
    for (const stream of streams) this.drop(stream);
    if (this.#turn) clearImmediate(this.#turn);
  }

  #pump(): void {
    if (this.#ended || this.#streams.length === 0) return;
    const socket = this.#socket;
    socket.cork();
    while (this.#streams.length > 0 && socket.writableLength < HIGH_WATER && this.#turnBytes < TURN_BYTES) {
      const stream = this.#streams.shift()!;
      try {
        this.#piece(stream);
      } catch (error) {
        stream.failed(error);
        continue;
      }
      if (stream.left > 0) this.#streams.push(stream);
      else {
        stream.handed();
        this.#over(stream);
      }
    }
    socket.uncork();
    if (this.#streams.length > 0 && this.#turnBytes >= TURN_BYTES) this.#turn ??= setImmediate(this.#nextTurn);
  }

  readonly #nextTurn = () => {
    this.#turn = undefined;
    this.#turnBytes = 0;
    this.#pump();
  };

  #piece(stream: OutStream): void {
    const length = Math.min(PIECE_BYTES, stream.left);
    let views: Uint8Array[] = [];
    for (let left = length; left > 0; left -= views[views.length - 1].length) views.push(stream.cursor.next(left)!);
    const buffer = this.#spare.pop() ?? new Uint8Array(HEADER_BYTES + PIECE_BYTES);
    const head = buffer.subarray(0, HEADER_BYTES);
    if (views.length > 1 && length < views.length * GATHER_BELOW) views = [gather(views, buffer, length)];
    let sum = 0n;
    if (stream.sums) for (const view of views) sum = crc64(view, sum);
    const header: Header = {
      length,
      type: stream.type,
      flags: stream.sums ? SUMS : 0,
      id: stream.id,
      value: stream.next++,
      sum,
    };
    writeHeader(head, header);
    stream.left -= length;
    this.#turnBytes += length;
    this.sentAt = performance.now();
    stream.queued++;
    this.#socket.write(head);
    views.forEach((view, i) => {
      if (i < views.length - 1) this.#socket.write(view);
      else this.#socket.write(view, () => this.#taken(buffer, stream));
    });
  }

  #taken(buffer: Uint8Array, stream: OutStream): void {
    if (this.#spare.length < SPARE_BUFFERS) this.#spare.push(buffer);
    stream.queued--;
    if (stream.left === 0 && stream.queued === 0) this.#over(stream);
    this.#pump();
  }
}

/** The ranges one after the other, behind the room for a header. */
function gather(views: Uint8Array[], buffer: Uint8Array, length: number): Uint8Array {
  let at = HEADER_BYTES;
  for (const view of views) {
    buffer.set(view, at);
    at += view.length;
  }
  return buffer.subarray(HEADER_BYTES, HEADER_BYTES + length);
}
