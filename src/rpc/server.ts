/**
 * Serves Mooncake's RPC on a port. Handlers are given by method; several schemas of one method (wheel versions) stand side
 * by side and are told apart by the type code of the request. What one connection may ask for at once: connection.ts.
 *
 * A request for a method that is not served, or of a shape that no schema here has, is answered with the protocol's error
 * and told to `onRefused`, once per method and shape: version skew must be seen, and must not fill a log.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { listening } from '../listening.js';
import { Connection } from './connection.js';
import { type Frame, RPC_ERROR } from './frames.js';
import type { Method } from './method.js';
import { Outbox } from './outbox.js';
import { readHeader, readPayload } from './struct-pack.js';
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
  /** Bytes of unread answers from which a connection's requests wait. Default 8 MiB. */
  maxUnreadBytes?: number;
  /** Requests of a connection under way from which its others wait. Default 64. */
  maxCallsPerConnection?: number;
  onRefused?: (refusal: Refusal) => void;
  /** Told of every call that is answered: the handler's result, undefined where it threw, and the time that it took. */
  onCall?: (method: string, args: unknown, result: unknown, milliseconds: number) => void;
  /** Asked before and after each call, by the method's name. */
  gate?: RpcGate;
}

export interface RpcGate {
  /** What it throws is the answer, and the handler is not called. */
  enter(method: string): void;
  /** What it returns is waited for before the answer leaves; where that rejects, the reason is the answer. */
  settled(method: string): Promise<void> | undefined;
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
  readonly #connections = new Set<Connection>();
  readonly #outbox = new Outbox();
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
    return listening(server, host, port);
  }

  /** Closes the port and every connection. Idempotent. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const connection of this.#connections) connection.destroy();
    if (server?.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #serve(socket: Socket): void {
    const { maxRequestBytes = 64 * 2 ** 20, maxUnreadBytes = 8 * 2 ** 20, maxCallsPerConnection = 64 } = this.#options;
    const limits = { maxRequestBytes, maxUnreadBytes, maxCalls: maxCallsPerConnection };
    const connection = new Connection(socket, limits, this.#outbox, (frame, from) => this.#request(from, frame));
    this.stats.connections++;
    this.#connections.add(connection);
    socket.on('close', () => this.#connections.delete(connection));
  }

  #request(connection: Connection, { sequence, word, body }: Frame): void {
    this.stats.requests++;
    const schemas = this.#methods.get(word);
    if (!schemas) {
      this.#refuse({ method: hex(word), expected: [], remote: connection.remote });
      this.#fail(connection, sequence, RPC_ERROR.notRegistered, 'the rpc function not registered');
      return;
    }
    let served = schemas.get(-1);
    let args: unknown = {};
    if (!served) {
      try {
        const header = readHeader(body);
        served = schemas.get(header.code);
        if (!served) {
          this.#unknown(connection, sequence, schemas, header.code, header.literal);
          return;
        }
        args = readPayload(served.method.arguments!, body, header);
      } catch {
        this.#unknown(connection, sequence, schemas);
        return;
      }
    }
    this.#call(connection, sequence, served, args);
  }

  #call(connection: Connection, sequence: number, served: Served, args: unknown): void {
    const begun = this.#options.onCall ? performance.now() : 0;
    try {
      const { gate } = this.#options;
      const { name } = served.method;
      gate?.enter(name);
      const result = served.handler(args, connection);
      const settled = result instanceof Promise ? result.then(() => gate?.settled(name)) : gate?.settled(name);
      if (settled === undefined) {
        this.#answer(connection, sequence, served, args, result, begun);
        return;
      }
      Promise.all([result, settled]).then(
        ([value]) => this.#answer(connection, sequence, served, args, value, begun),
        (error) => this.#throw(connection, sequence, served, args, error, begun),
      );
    } catch (error) {
      this.#throw(connection, sequence, served, args, error, begun);
    }
  }

  #unknown(
    connection: Connection,
    sequence: number,
    schemas: Map<number, Served>,
    code?: number,
    literal?: Uint8Array,
  ): void {
    const [first] = schemas.values();
    this.#refuse({
      method: first.method.name,
      code: code === undefined ? undefined : hex(code),
      expected: [...schemas.keys()].map(hex),
      literal: literal && Buffer.from(literal).toString('hex'),
      remote: connection.remote,
    });
    this.#fail(connection, sequence, RPC_ERROR.invalidArguments, 'invalid rpc arg');
  }

  #refuse(refusal: Refusal): void {
    this.stats.refused++;
    const shape = `${refusal.method} ${refusal.code}`;
    // What strangers send must not grow without bound either.
    if (this.#told.has(shape) || this.#told.size >= 1024) return;
    this.#told.add(shape);
    this.#options.onRefused?.(refusal);
  }

  #throw(connection: Connection, sequence: number, served: Served, args: unknown, error: unknown, begun: number): void {
    this.stats.failed++;
    this.#fail(connection, sequence, RPC_ERROR.exception, error instanceof Error ? error.message : String(error));
    this.#options.onCall?.(served.method.name, args, undefined, performance.now() - begun);
  }

  #fail(connection: Connection, sequence: number, error: number, why: string): void {
    connection.answer(sequence, error, text, why);
  }

  #answer(
    connection: Connection,
    sequence: number,
    served: Served,
    args: unknown,
    value: unknown,
    begun: number,
  ): void {
    try {
      connection.answer(sequence, RPC_ERROR.ok, served.method.result, value);
    } catch (error) {
      this.#throw(connection, sequence, served, args, error, begun);
      return;
    }
    this.#options.onCall?.(served.method.name, args, value, performance.now() - begun);
  }
}
