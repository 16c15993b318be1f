/**
 * One connection to a peer's data port: requests one after the other, as stock engines serve them. A lane that fails in the
 * middle of a request is closed, so that nothing that is still under way can be taken for another's. The stream does not say
 * who serves it: a peer of ours is asked, once the connection stands, which run it is.
 */
import type { Socket } from 'node:net';
import { errors, type MooncakeError } from '../../core/errors.js';
import { parseDescriptor } from '../metadata/descriptor.js';
import { exchange, HANDSHAKE } from '../metadata/handshake.js';
import type { Cursor } from '../ranges.js';
import { openSocket } from '../tcp/receiving.js';
import type { LaneRequest } from './portable-requests.js';
import { readStatus, requestBytes, STATUS_BYTES } from './portable-wire.js';

const PIECE_BYTES = 256 * 1024;
/** How long a peer may take to say which run it is. */
const IDENTIFY_MS = 5000;

export interface LanePlace {
  name: string;
  host: string;
  port: number;
  version: 1 | 2;
  /** Undefined: not a peer of ours. */
  generation?: string;
}

interface Running {
  request: LaneRequest;
  /** What is still to come: of the status word, then of data. */
  statusLeft: number;
  dataLeft: number;
  /** Where data goes; undefined: nowhere. */
  into?: Cursor;
  resolve(): void;
  reject(error: MooncakeError): void;
}

export class Lane {
  readonly #socket: Socket;
  readonly #place: LanePlace;
  readonly #status = new Uint8Array(STATUS_BYTES);
  readonly #identifying = new AbortController();
  #ready = false;
  #running?: Running;
  #error?: MooncakeError;

  /** `onEnd`: it takes no more requests. */
  constructor(place: LanePlace, onEnd: () => void) {
    const { name, host, port } = place;
    this.#place = place;
    this.#socket = openSocket({ host, port }, (bytes) => this.#receive(bytes));
    this.#socket.setNoDelay();
    this.#socket.on('connect', () => this.#identify().then(this.#begin, (error) => this.close(error)));
    this.#socket.on('error', (error) => this.close(errors.peer(name, error.message, error)));
    this.#socket.on('end', () => this.close(errors.peer(name, 'closed the connection')));
    this.#socket.on('close', () => {
      this.close(errors.peer(name, 'the connection was lost'));
      onEnd();
    });
  }

  get idle(): boolean {
    return !this.#running && !this.#error;
  }

  /** After a rejection the lane is closed, and the request's memory is not touched any more. */
  run(request: LaneRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#error) return reject(this.#error);
      const { write, size } = request;
      const statusLeft = this.#place.version === 2 ? STATUS_BYTES : 0;
      this.#running = { request, statusLeft, dataLeft: write ? 0 : size, resolve, reject };
      if (this.#ready) this.#begin();
    });
  }

  /** Ends it, and the request that it runs. */
  close(error: MooncakeError): void {
    if (this.#error) return;
    this.#error = error;
    this.#identifying.abort(error);
    this.#socket.destroy();
    const running = this.#running;
    this.#running = undefined;
    running?.reject(error);
  }

  /** The connection stands already, so whoever answers now is who will serve it. */
  async #identify(): Promise<void> {
    const { name, host, port, generation } = this.#place;
    if (generation === undefined) return;
    const limits = { timeoutMs: IDENTIFY_MS, signal: this.#identifying.signal };
    const { own } = parseDescriptor(await exchange({ host, port }, HANDSHAKE.metadata, '{}', limits));
    if (own?.generation !== generation) throw errors.peer(name, 'it was started again: refresh it');
  }

  #begin = (): void => {
    this.#ready = true;
    const running = this.#running;
    if (!running) return;
    const { request } = running;
    const { write, address, size } = request;
    if (!write) running.into = request.memory();
    this.#socket.write(requestBytes({ size, address, write, status: running.statusLeft > 0 }));
    if (write) this.#send(running, request.memory());
  };

  #send(running: Running, from: Cursor): void {
    let left = running.request.size;
    const pump = () => {
      while (left > 0) {
        if (this.#running !== running) return;
        let piece: Uint8Array;
        try {
          piece = from.next(Math.min(left, PIECE_BYTES))!;
        } catch (error) {
          return this.close(error as MooncakeError);
        }
        left -= piece.length;
        if (!this.#socket.write(piece)) return void this.#socket.once('drain', pump);
      }
      if (this.#place.version === 1) this.#confirm(running);
    };
    pump();
  }

  /** Version 1 acknowledges no write. But it serves in order: once it has answered a read of the last byte, all are there. */
  #confirm(running: Running): void {
    const { address, size } = running.request;
    running.dataLeft = 1;
    this.#socket.write(requestBytes({ size: 1, address: address + size - 1, write: false, status: false }));
  }

  #receive(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#error) {
      const running = this.#running;
      const rest = bytes.subarray(at);
      if (running && running.statusLeft > 0) at += this.#takeStatus(running, rest);
      else if (running && running.dataLeft > 0) at += this.#takeData(running, rest);
      else this.close(errors.protocol('bytes that nobody asked for', rest.length));
    }
  }

  #takeStatus(running: Running, bytes: Uint8Array): number {
    const taken = bytes.subarray(0, running.statusLeft);
    this.#status.set(taken, STATUS_BYTES - running.statusLeft);
    running.statusLeft -= taken.length;
    if (running.statusLeft > 0) return taken.length;
    const status = readStatus(this.#status);
    const { address, size } = running.request;
    if (status === undefined) this.close(errors.protocol('an answer without status', this.#status.slice()));
    else if (status !== 0) {
      const why = `${this.#place.name} has no such memory, or may not be asked for it (status ${status})`;
      this.close(errors.segment('address', BigInt(address), `${size} bytes: ${why}`));
    } else if (running.dataLeft === 0) this.#done(running);
    return taken.length;
  }

  #takeData(running: Running, bytes: Uint8Array): number {
    const rest = bytes.subarray(0, running.dataLeft);
    let view = rest;
    if (running.into) {
      try {
        view = running.into.next(rest.length)!;
      } catch (error) {
        this.close(error as MooncakeError);
        return bytes.length;
      }
      view.set(rest.subarray(0, view.length));
    }
    running.dataLeft -= view.length;
    if (running.dataLeft === 0) this.#done(running);
    return view.length;
  }

  #done(running: Running): void {
    this.#running = undefined;
    running.resolve();
  }
}
