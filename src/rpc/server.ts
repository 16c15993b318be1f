/**
 * Serves Mooncake's RPC on a port. Handlers are given by method; several schemas of one method (wheel versions) stand side
 * by side and are told apart by the type code of the request. Requests of a connection are started in order and answered
 * as they finish; a connection that leaves its answers unread is read no further.
 *
 * A request for a method that is not served, or of a shape that no schema here has, is answered with the protocol's error
 * and told to `onRefused`, once per method and shape: version skew must be seen, and must not fill a log.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { errors } from '../core/errors.js';
import { answerHeader, type Frame, FrameReader, RPC_ERROR } from './frames.js';
import type { Method } from './method.js';
import { pack, readHeader, readPayload } from './struct-pack.js';
import { text } from './types.js';

/** A request that was refused: what came, and what would have been understood. */
export interface Refusal {
  /** The method's name, or its id in hex. */
  method: string;
  /** Type code that came, hex; undefined where the method itself is unknown or the bytes were no value. */
  code?: string;
  /** Codes that are understood. */
  expected: readonly string[];
  /** The client's type literal, hex, where it sent one: it tells its schema. */
  literal?: string;
  remote: string;
}

export interface RpcServerOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 0: one that is free. */
  port?: number;
  /** Largest request taken, bytes. Default 64 MiB. */
  maxRequestBytes?: number;
  /** Connections at once; more are closed. Default 4,096. */
  maxConnections?: number;
  /** Bytes of unread answers from which a connection is read no further. Default 8 MiB. */
  maxUnreadBytes?: number;
  onRefused?: (refusal: Refusal) => void;
}

export interface RequestInfo {
  /** host:port of the caller. */
  readonly remote: string;
}

type Handler<A, R> = (args: A, info: RequestInfo) => R | Promise<R>;

interface Served {
  readonly method: Method<unknown, unknown>;
  readonly handler: Handler<unknown, unknown>;
}

/** Counted since the start. */
export interface RpcServerStats {
  connections: number;
  requests: number;
  refused: number;
  failed: number;
}

const hex = (code: number) => code.toString(16).padStart(8, '0');

export class RpcServer {
  readonly stats: RpcServerStats = { connections: 0, requests: 0, refused: 0, failed: 0 };
  /** By function id; under each, by the type code of the arguments (-1: none). */
  readonly #methods = new Map<number, Map<number, Served>>();
  readonly #sockets = new Set<Socket>();
  readonly #told = new Set<string>();
  readonly #options: RpcServerOptions;
  #server?: Server;

  constructor(options: RpcServerOptions = {}) {
    this.#options = options;
  }

  /** Handles a method; what the handler throws is answered as the protocol's exception. Later schemas stand beside the first. */
  handle<A, R>(method: Method<A, R>, handler: Handler<A, R>): void {
    let schemas = this.#methods.get(method.id);
    if (!schemas) this.#methods.set(method.id, (schemas = new Map()));
    schemas.set(method.argumentCode, { method, handler } as unknown as Served);
  }

  /** Resolves with the port. Throws ERR_PEER where it cannot be had. */
  listen(): Promise<number> {
    const { host = '127.0.0.1', port = 0, maxConnections = 4096 } = this.#options;
    const server = createServer({ noDelay: true }, (socket) => this.#serve(socket));
    server.maxConnections = maxConnections;
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(errors.peer(`${host}:${port}`, error.message, error)));
      server.listen({ host, port }, () => resolve((server.address() as AddressInfo).port));
    });
  }

  /** Closes the port and every connection. Idempotent. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.destroy();
    if (server?.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #serve(socket: Socket): void {
    const { maxRequestBytes = 64 * 2 ** 20, maxUnreadBytes = 8 * 2 ** 20 } = this.#options;
    const info: RequestInfo = { remote: `${socket.remoteAddress}:${socket.remotePort}` };
    this.#sockets.add(socket);
    this.stats.connections++;
    const reader = new FrameReader('request', maxRequestBytes, (frame) => this.#request(socket, frame, info));
    socket.on('data', (chunk) => {
      // Answers to one chunk's requests leave in one write.
      socket.cork();
      try {
        reader.push(chunk);
      } catch {
        // No frame of this protocol: stock closes as well.
        socket.destroy();
      }
      socket.uncork();
      if (socket.writableLength > maxUnreadBytes) socket.pause();
    });
    socket.on('drain', () => socket.resume());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
  }

  #request(socket: Socket, { sequence, word, body }: Frame, info: RequestInfo): void {
    this.stats.requests++;
    const schemas = this.#methods.get(word);
    if (!schemas) {
      this.#refuse({ method: hex(word), expected: [], remote: info.remote });
      this.#fail(socket, sequence, RPC_ERROR.notRegistered, 'the rpc function not registered');
      return;
    }
    let served = schemas.get(-1);
    let args: unknown = {};
    if (!served) {
      try {
        const header = readHeader(body);
        served = schemas.get(header.code);
        if (!served) {
          this.#unknown(socket, sequence, schemas, info, header.code, header.literal);
          return;
        }
        args = readPayload(served.method.arguments!, body, header);
      } catch {
        this.#unknown(socket, sequence, schemas, info);
        return;
      }
    }
    this.#call(socket, sequence, served, args, info);
  }

  #call(socket: Socket, sequence: number, served: Served, args: unknown, info: RequestInfo): void {
    try {
      const result = served.handler(args, info);
      if (result instanceof Promise) {
        result.then(
          (value) => this.#answer(socket, sequence, served, value),
          (error) => this.#throw(socket, sequence, error),
        );
      } else {
        this.#answer(socket, sequence, served, result);
      }
    } catch (error) {
      this.#throw(socket, sequence, error);
    }
  }

  #unknown(
    socket: Socket,
    sequence: number,
    schemas: Map<number, Served>,
    { remote }: RequestInfo,
    code?: number,
    literal?: Uint8Array,
  ): void {
    const [first] = schemas.values();
    this.#refuse({
      method: first.method.name,
      code: code === undefined ? undefined : hex(code),
      expected: [...schemas.keys()].map(hex),
      literal: literal && Buffer.from(literal).toString('hex'),
      remote,
    });
    this.#fail(socket, sequence, RPC_ERROR.invalidArguments, 'invalid rpc arg');
  }

  #refuse(refusal: Refusal): void {
    this.stats.refused++;
    const shape = `${refusal.method} ${refusal.code}`;
    // What strangers send must not grow without bound either.
    if (this.#told.has(shape) || this.#told.size >= 1024) return;
    this.#told.add(shape);
    this.#options.onRefused?.(refusal);
  }

  #throw(socket: Socket, sequence: number, error: unknown): void {
    this.stats.failed++;
    this.#fail(socket, sequence, RPC_ERROR.exception, error instanceof Error ? error.message : String(error));
  }

  #fail(socket: Socket, sequence: number, code: number, why: string): void {
    this.#send(socket, sequence, code, pack(text, why));
  }

  #answer(socket: Socket, sequence: number, { method }: Served, value: unknown): void {
    try {
      this.#send(socket, sequence, RPC_ERROR.ok, pack(method.result, value));
    } catch (error) {
      this.#throw(socket, sequence, error);
    }
  }

  #send(socket: Socket, sequence: number, code: number, body: Buffer): void {
    if (socket.destroyed) return;
    socket.write(answerHeader(sequence, code, body.length));
    socket.write(body);
  }
}
