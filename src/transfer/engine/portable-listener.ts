/** The one port of an engine in TypeScript: handshakes and Mooncake's data stream, told apart by their first bytes. */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { listening } from '../../listening.js';
import { HandshakeReader, handshakeFrame, MAX_REQUEST_BYTES } from '../metadata/handshake.js';
import { acceptSocket } from '../tcp/receiving.js';
import type { AnswerHandshake } from './plane.js';
import type { PortableMemory } from './portable-memory.js';
import { DataServing } from './portable-serving.js';
import { classify } from './portable-wire.js';

/** How long a handshake may take, and after its answer the peer to close. Stock's limit. */
const HANDSHAKE_MS = 5000;
/** Who connects has so long to begin. */
const OPENING_MS = 30_000;
const MAX_CONNECTIONS = 4096;

type Receive = (bytes: Uint8Array) => void;

export class PortableListener {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, memory: PortableMemory, answer: AnswerHandshake) {
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (accepted) => {
      const socket = acceptSocket(accepted, (bytes) => receive(bytes));
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // What ends a connection is of no more interest than that it ended.
      socket.on('error', () => {});
      const receive = opening(socket, memory, answer);
    });
  }

  /** Throws ERR_PEER where the port cannot be had. */
  static async listen(
    host: string,
    port: number,
    memory: PortableMemory,
    answer: AnswerHandshake,
  ): Promise<PortableListener> {
    const server = createServer({ pauseOnConnect: true, noDelay: true });
    await listening(server, host, port);
    return new PortableListener(server, memory, answer);
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
  }
}

function opening(socket: Socket, memory: PortableMemory, answer: AnswerHandshake): Receive {
  let first = new Uint8Array();
  let receive: Receive | undefined;
  const late = setTimeout(() => socket.destroy(), OPENING_MS);
  socket.on('close', () => clearTimeout(late));
  return (bytes) => {
    if (receive) return receive(bytes);
    first = Uint8Array.from([...first, ...bytes.subarray(0, 64)]);
    const kind = classify(first);
    if (kind === 'more') return;
    clearTimeout(late);
    if (kind === 'unknown') return void socket.destroy();
    receive = kind === 'data' ? serveData(socket, memory) : serveHandshake(socket, answer);
    receive(first);
    if (bytes.length > 64) receive(bytes.subarray(64));
  };
}

function serveData(socket: Socket, memory: PortableMemory): Receive {
  const serving = new DataServing(socket, memory);
  return (bytes) => serving.receive(bytes);
}

function serveHandshake(socket: Socket, answer: AnswerHandshake): Receive {
  const reader = new HandshakeReader(MAX_REQUEST_BYTES);
  const late = setTimeout(() => socket.destroy(), HANDSHAKE_MS);
  socket.on('close', () => clearTimeout(late));
  return (bytes) => {
    try {
      const request = reader.push(bytes);
      if (!request) return;
      const { type } = request;
      socket.end(handshakeFrame(type, answer(type ?? 0, request.text)));
      late.refresh();
    } catch {
      // Not a handshake, or one that nobody can answer: there is no frame to say so in.
      socket.destroy();
    }
  };
}
