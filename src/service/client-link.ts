/**
 * A half's session with the service: it is there, or it is not and is made anew between two steps. Blocks that the service was
 * told of may be used again when `ended` resolves: it has closed its end of the connection, or is dead.
 */
import { errors, MooncakeError } from '../core/errors.js';
import { Bridge } from './client-bridge.js';
import type { Run } from './envelope.js';
import { PROTOCOL } from './operations.js';

export interface Greeted {
  readonly instance: string;
  readonly version: string;
  /** The descriptor socket; null where the service takes no memory. */
  readonly descriptors: string | null;
  /** What it takes beyond the first services of the protocol. */
  readonly features?: readonly string[];
}

/** Makes the session on a new connection. */
export type Attach = (call: Call, greeted: Greeted) => Attached;
export type Call = (op: string, args: object) => unknown;

export interface Attached {
  readonly session: number;
  readonly generation: number;
}

export interface LinkOptions {
  readonly socket: string;
  /** Of a call. */
  readonly timeoutMs: number;
  /** How long a lost service may keep the memory while somebody waits for it. */
  readonly silenceMs: number;
}

const FIRST_WAIT_MS = 50;
const MOST_WAIT_MS = 5000;
/** These end the session; any other error is the call's alone. */
const ENDS = ['ERR_STALE', 'ERR_PEER', 'ERR_TIMEOUT', 'ERR_CLOSED', 'ERR_PROTOCOL'];
const NOBODY = Promise.resolve();

export class Link {
  readonly #socket: string;
  readonly #timeoutMs: number;
  readonly #silenceMs: number;
  readonly #attach: Attach;
  #bridge: Bridge | undefined;
  #session = 0;
  #run: Run | undefined;
  #ended: Promise<void> = NOBODY;
  #waitMs = FIRST_WAIT_MS;
  #next = 0;
  #closed = false;

  constructor({ socket, timeoutMs, silenceMs }: LinkOptions, attach: Attach) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    this.#silenceMs = silenceMs;
    this.#attach = attach;
  }

  get up(): boolean {
    if (this.#bridge?.lost !== undefined) this.lose();
    return this.#bridge !== undefined;
  }

  /** The engine's run at the service; undefined without a session. */
  get run(): Run | undefined {
    return this.up ? this.#run : undefined;
  }

  /** Resolves when the connections before this one are of no effect any more. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Throws what the service refuses; one that is not there is asked again later. */
  open(): void {
    try {
      this.#connect();
    } catch (error) {
      if (!isEnd(error)) throw error;
      this.#later();
    }
  }

  /** Between two steps: makes the session where there is none, if it is time to. Refusals count as not there. */
  revive(): void {
    if (this.up || this.#closed || performance.now() < this.#next) return;
    try {
      this.#connect();
      this.#waitMs = FIRST_WAIT_MS;
    } catch (error) {
      if (!(error instanceof MooncakeError)) throw error;
      this.#later();
    }
  }

  /** A call of the session; undefined where there is none (any more). Throws what is the call's own error. */
  now<T>(op: string, args: object = {}): T | undefined {
    const bridge = this.#up();
    if (bridge === undefined) return undefined;
    try {
      return bridge.callNow(op, { session: this.#session, ...args }, this.#timeoutMs) as T;
    } catch (error) {
      if (!isEnd(error)) throw error;
      this.lose();
      return undefined;
    }
  }

  async call<T>(op: string, args: object = {}, timeoutMs = this.#timeoutMs): Promise<T | undefined> {
    const bridge = this.#up();
    if (bridge === undefined) return undefined;
    try {
      return (await bridge.call(op, { session: this.#session, ...args }, timeoutMs)) as T;
    } catch (error) {
      if (!isEnd(error)) throw error;
      if (this.#bridge === bridge) this.lose();
      return undefined;
    }
  }

  send(op: string, args: object = {}): void {
    this.#up()?.send(op, { session: this.#session, ...args });
  }

  /** Ends the session; another is made by `revive`. */
  lose(): void {
    const bridge = this.#bridge;
    if (bridge === undefined) return;
    this.#bridge = undefined;
    bridge.end();
    const before = this.#ended;
    this.#ended = Promise.all([before, bridge.closed]).then(() => {});
    this.#later();
  }

  /**
   * Waits for `work`, which needs lost connections to be of no effect any more. Throws ERR_TIMEOUT where that takes too long: the
   * service lives, does not answer, and may still touch the memory.
   */
  async patiently(work: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const what = `letting go of the engine's memory, by a service at ${this.#socket} that lives and does not answer,`;
      timer = setTimeout(() => reject(errors.timeout(what, this.#silenceMs)), this.#silenceMs);
    });
    try {
      await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Detaches: what was to be saved leaves first, for a moment. Throws ERR_TIMEOUT as `patiently` does. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.call('detach');
    this.lose();
    await this.patiently(this.#ended);
  }

  #up(): Bridge | undefined {
    return this.up ? this.#bridge : undefined;
  }

  #connect(): void {
    const bridge = new Bridge(this.#socket);
    try {
      const call: Call = (op, args) => bridge.callNow(op, args, this.#timeoutMs);
      const greeted = call('hello', { protocol: PROTOCOL, client: 'mooncake-ts', pid: process.pid }) as Greeted;
      const { session, generation } = this.#attach(call, greeted);
      this.#session = session;
      this.#run = `${greeted.instance}:${generation}`;
      this.#bridge = bridge;
    } catch (error) {
      void bridge.destroy();
      throw error;
    }
  }

  #later(): void {
    this.#next = performance.now() + this.#waitMs;
    this.#waitMs = Math.min(MOST_WAIT_MS, 2 * this.#waitMs);
  }
}

const isEnd = (error: unknown) => error instanceof MooncakeError && ENDS.includes(error.code);
