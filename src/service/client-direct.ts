/**
 * A channel by the accelerator's socket: a caller that waits reads it in its own thread, the event loop reads the same socket
 * between turns. So a call costs the two wake-ups that it must, ours and the service's.
 */
import { Socket } from 'node:net';
import { errors, type MooncakeError } from '../core/errors.js';
import type { Addon, ControlSocket } from '../native/addon.js';
import type { Channel, FromService, ToService } from './client-channel.js';
import { decodeFrame, encodeFrame, FrameReader } from './frames.js';
import { distrust } from './paths.js';

const READ_BYTES = 64 * 1024;
/** When the kernel has no room for what is to go out, and nobody waits for an answer: how soon it is asked again. */
const RETRY_MS = 1;

export class DirectChannel implements Channel {
  readonly #path: string;
  readonly #take: (message: FromService) => void;
  readonly #socket: ControlSocket;
  readonly #loop: Socket;
  readonly #frames = new FrameReader();
  readonly #area = new Uint8Array(READ_BYTES);
  #unsent: Uint8Array[] = [];
  #scheduled = false;
  #ending = false;
  #ended = false;
  #why: MooncakeError;

  /** Throws ERR_PEER where no service listens, ERR_INVALID_ARGUMENT where it is a stranger's. */
  constructor(addon: Addon, path: string, take: (message: FromService) => void) {
    this.#path = path;
    this.#take = take;
    this.#why = errors.peer(path, 'the service has ended the connection');
    let uid: number;
    try {
      this.#socket = new addon.ControlSocket(path);
      const fd = this.#socket.duplicate();
      this.#loop = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
      uid = addon.peerCredentials(fd).uid;
    } catch (error) {
      throw errors.peer(path, (error as Error).message, error);
    }
    const stranger = distrust(path, uid);
    if (stranger !== undefined) {
      this.#close();
      throw stranger;
    }
    this.#loop.unref();
    this.#loop.on('data', (chunk) => this.#came(chunk));
    this.#loop.on('error', (error) => {
      this.#why = errors.peer(path, error.message, error);
    });
    this.#loop.on('end', () => this.#loop.end());
    this.#loop.on('close', () => this.#finish());
  }

  post(message: ToService): void {
    this.#unsent.push(encodeFrame(message));
    if (this.#scheduled) return;
    this.#scheduled = true;
    process.nextTick(() => this.#flush());
  }

  wait(milliseconds: number): void {
    this.#send();
    if (this.#ended || !this.#socket.wait(this.#unsent.length > 0, Math.ceil(milliseconds))) return;
    this.#guard(() => {
      const length = this.#socket.receive(this.#area);
      // Results are views of what came.
      if (length > 0) this.#came(this.#area.slice(0, length));
      else if (length < 0) this.#finish();
    });
  }

  ref(): void {
    this.#loop.ref();
  }

  unref(): void {
    this.#loop.unref();
  }

  end(): void {
    this.#ending = true;
    this.#flush();
  }

  async destroy(): Promise<void> {
    this.#ended = true;
    this.#close();
  }

  #flush(): void {
    this.#send();
    this.#scheduled = !this.#ended && this.#unsent.length > 0;
    if (this.#scheduled) setTimeout(() => this.#flush(), RETRY_MS).unref();
    else if (this.#ending) this.#loop.end();
  }

  /** As much as the kernel takes now. */
  #send(): void {
    if (this.#ended || this.#unsent.length === 0) return;
    const bytes = this.#unsent.length === 1 ? this.#unsent[0] : Buffer.concat(this.#unsent);
    try {
      const sent = this.#socket.send(bytes);
      this.#unsent = sent < bytes.length ? [bytes.subarray(sent)] : [];
    } catch (error) {
      this.#drain();
      this.#fail(error);
    }
  }

  /** What came before nothing can be sent any more: a service that ends a connection says why, and its last answers count. */
  #drain(): void {
    this.#guard(() => {
      for (let length = 1; length > 0 && !this.#ended; ) {
        length = this.#socket.receive(this.#area);
        if (length > 0) this.#came(this.#area.slice(0, length));
      }
    });
  }

  #came(chunk: Uint8Array): void {
    try {
      for (const frame of this.#frames.push(chunk)) this.#take(decodeFrame(frame) as FromService);
    } catch (error) {
      this.#why = errors.protocol(`the service at ${this.#path}: ${(error as Error).message}`);
      this.#finish();
    }
  }

  /** What the socket throws ends the connection. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#why = errors.peer(this.#path, (error as Error).message, error);
    this.#finish();
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    const { code, message } = this.#why;
    this.#take([-1, { code, message }, null]);
    this.#close();
  }

  #close(): void {
    this.#unsent = [];
    this.#loop.destroy();
    this.#socket.close();
  }
}
