/**
 * Takes a connection's bytes apart, however they are cut: control frames are gathered and handed over whole, data goes
 * from the socket's buffer straight to where it belongs.
 */
import { crc64 } from '../../core/checksum.js';
import { errors } from '../../core/errors.js';
import {
  checkPreamble,
  FRAME,
  HEADER_BYTES,
  type Header,
  PIECE_BYTES,
  PREAMBLE_BYTES,
  readHeader,
  SUMS,
} from './frames.js';

/** Where the payload of a data frame goes. */
export interface DataTarget {
  write(bytes: Uint8Array): void;
  /** The payload is complete. */
  end(header: Header): void;
}

/** Both throw MooncakeErrors for frames that no peer of ours would send. */
export interface FrameSink {
  /** The largest control payload taken now. */
  readonly maxFrameBytes: number;
  control(header: Header, payload: Uint8Array): void;
  data(header: Header): DataTarget;
}

const isData = (type: number) => type === FRAME.readData || type === FRAME.writeData;

export class Input {
  readonly #sink: FrameSink;
  readonly #head = new Uint8Array(HEADER_BYTES);
  /** Bytes of the preamble or a header that are there, and that are wanted. */
  #filled = 0;
  #wanted = PREAMBLE_BYTES;
  #header?: Header;
  /** Of the frame whose payload is coming: one of the two, and the bytes to come. */
  #target?: DataTarget;
  #payload?: Uint8Array;
  #left = 0;
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Nothing more is handed over. */
  stop(): void {
    this.#stopped = true;
  }

  /** Throws what the sink throws, and ERR_PROTOCOL. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (!this.#header) {
        const take = Math.min(chunk.length - at, this.#wanted - this.#filled);
        this.#head.set(chunk.subarray(at, at + take), this.#filled);
        this.#filled += take;
        at += take;
        if (this.#filled === this.#wanted) this.#headed();
        continue;
      }
      const take = Math.min(chunk.length - at, this.#left);
      const bytes = chunk.subarray(at, at + take);
      if (this.#target) this.#target.write(bytes);
      else this.#payload!.set(bytes, this.#payload!.length - this.#left);
      at += take;
      this.#left -= take;
      if (this.#left === 0) this.#complete();
    }
  }

  #headed(): void {
    this.#filled = 0;
    if (this.#wanted === PREAMBLE_BYTES) {
      checkPreamble(this.#head);
      this.#wanted = HEADER_BYTES;
      return;
    }
    const header = readHeader(this.#head);
    if (isData(header.type)) {
      if (header.length === 0 || header.length > PIECE_BYTES) throw errors.protocol('a piece of no such size', header);
      this.#target = this.#sink.data(header);
    } else {
      if (header.length > this.#sink.maxFrameBytes) throw errors.protocol('a frame larger than allowed', header);
      if (!(header.flags & SUMS) && header.length > 0) throw errors.protocol('a control frame without a sum', header);
      this.#payload = new Uint8Array(header.length);
    }
    this.#header = header;
    this.#left = header.length;
    if (header.length === 0) this.#complete();
  }

  #complete(): void {
    const header = this.#header!;
    const target = this.#target;
    const payload = this.#payload;
    this.#header = this.#target = this.#payload = undefined;
    if (target) {
      target.end(header);
      return;
    }
    if (crc64(payload!) !== header.sum) throw errors.protocol("a control frame's checksum does not match", header);
    this.#sink.control(header, payload!);
  }
}
