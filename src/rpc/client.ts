/**
 * Calls of Mooncake's RPC over one connection. Requests are pipelined and answers matched by sequence, so calls do not wait for
 * each other here; a server may still answer one connection's in order. A call ends by its answer, its deadline, its
 * signal or the connection's end; what comes for it later is dropped.
 */
import { connect as dial, type Socket } from 'node:net';
import { errors, MooncakeError } from '../core/errors.js';
import { checkLimits, watch } from '../transfer/limits.js';
import type { CallLimits } from '../transfer/transfer.js';
import { type Frame, FrameReader, REQUEST_BYTES, RPC_ERROR, writeRequestHeader } from './frames.js';
import type { Method } from './method.js';
import { pack, unpack } from './struct-pack.js';
import { text } from './types.js';

export interface RpcClientOptions extends CallLimits {
  /** Largest answer taken, bytes. Default 256 MiB. */
  maxAnswerBytes?: number;
  /** Calls under way at once; more are refused with ERR_QUEUE_FULL. Default 8,192. */
  maxCalls?: number;
}

const TIMEOUT_MS = 30_000;

interface Call {
  settle(body: Uint8Array): void;
  fail(error: MooncakeError): void;
}

const NAMES = Object.fromEntries(Object.entries(RPC_ERROR).map(([name, code]) => [code, name]));

const uncork = (socket: Socket) => socket.uncork();

export class RpcClient {
  /** host:port. */
  readonly address: string;
  /** Resolves once, with the reason, when the connection has ended. */
  readonly closed: Promise<MooncakeError>;
  readonly #socket: Socket;
  readonly #calls = new Map<number, Call>();
  readonly #timeoutMs: number;
  readonly #maxCalls: number;
  #sequence = 0;
  #ended?: MooncakeError;
  #resolveClosed!: (reason: MooncakeError) => void;

  private constructor(address: string, socket: Socket, options: RpcClientOptions) {
    this.address = address;
    this.#socket = socket;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#maxCalls = options.maxCalls ?? 8192;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const reader = new FrameReader('answer', options.maxAnswerBytes ?? 256 * 2 ** 20, (frame) => this.#answer(frame));
    socket.on('data', (chunk) => {
      try {
        reader.push(chunk);
      } catch (error) {
        this.#end(error instanceof MooncakeError ? error : errors.protocol(String(error)));
      }
    });
    socket.on('error', (error) => this.#end(errors.peer(address, error.message, error)));
    socket.on('close', () => this.#end(errors.peer(address, 'the connection was closed')));
  }

  /** Throws ERR_PEER where nothing answers, ERR_TIMEOUT, ERR_ABORTED. */
  static connect(host: string, port: number, options: RpcClientOptions = {}): Promise<RpcClient> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    return new Promise((resolve, reject) => {
      const limits = checkLimits(options, TIMEOUT_MS);
      const socket = dial({ host, port, noDelay: true });
      const fail = (error: MooncakeError) => {
        stop();
        socket.destroy();
        reject(error);
      };
      const stop = watch(`connecting to ${address}`, limits, fail);
      const refuse = (error: Error) => fail(errors.peer(address, error.message, error));
      socket.once('error', refuse);
      socket.once('connect', () => {
        stop();
        socket.removeListener('error', refuse);
        resolve(new RpcClient(address, socket, options));
      });
    });
  }

  /** Throws ERR_PEER, ERR_TIMEOUT, ERR_ABORTED, ERR_PROTOCOL, ERR_NOT_SUPPORTED where the server has no such method. */
  call<A, R>(method: Method<A, R>, args: A, limits?: CallLimits): Promise<R> {
    return new Promise((resolve, reject) => {
      if (this.#ended) throw this.#ended;
      if (this.#calls.size >= this.#maxCalls) throw errors.queueFull(this.#maxCalls);
      const checked = checkLimits(limits, this.#timeoutMs);
      const request = method.arguments
        ? pack(method.arguments, args, REQUEST_BYTES)
        : Buffer.allocUnsafe(REQUEST_BYTES);
      const sequence = this.#next();
      const finish = () => {
        stop();
        this.#calls.delete(sequence);
        if (this.#calls.size === 0) this.#socket.unref();
      };
      const fail = (error: MooncakeError) => {
        finish();
        reject(error);
      };
      const stop = watch(`${method.name} of ${this.address}`, checked, fail);
      if (this.#calls.size === 0) this.#socket.ref();
      this.#calls.set(sequence, {
        fail,
        settle: (answer) => {
          finish();
          try {
            resolve(unpack(method.result, answer));
          } catch (error) {
            reject(error);
          }
        },
      });
      writeRequestHeader(request, sequence, method.id);
      this.#send(request);
    });
  }

  /** Ends what is under way with ERR_CLOSED, or with the reason given. Idempotent. */
  close(reason = errors.closed(`RPC connection ${this.address}`)): void {
    this.#end(reason);
  }

  /** Requests of one turn leave in one write. */
  #send(request: Buffer): void {
    const socket = this.#socket;
    if (socket.writableCorked === 0) {
      socket.cork();
      process.nextTick(uncork, socket);
    }
    socket.write(request);
  }

  /** A sequence number that no call under way has. */
  #next(): number {
    do this.#sequence = (this.#sequence + 1) >>> 0;
    while (this.#calls.has(this.#sequence));
    return this.#sequence;
  }

  #answer({ sequence, word, body }: Frame): void {
    const call = this.#calls.get(sequence);
    if (!call) return;
    if (word === RPC_ERROR.ok) call.settle(body);
    else call.fail(this.#refusal(word, body));
  }

  #refusal(code: number, body: Uint8Array): MooncakeError {
    let why: string;
    try {
      why = unpack(text, body);
    } catch {
      why = 'no message';
    }
    if (code === RPC_ERROR.notRegistered) return errors.notSupported(`the call, by ${this.address}`, why);
    return errors.peer(this.address, `${NAMES[code] ?? `error ${code}`}: ${why}`);
  }

  #end(reason: MooncakeError): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#socket.destroy();
    for (const call of [...this.#calls.values()]) call.fail(reason);
    this.#resolveClosed(reason);
  }
}
