/**
 * The HTTP metadata server of Mooncake: a table of JSON values under the keys that engines choose.
 *
 *   GET | PUT | DELETE /metadata?key=…     GET /health
 *
 * It is for engines that trust each other, and bounded all the same: keys, values and their sum have limits. `handle` lets
 * another HTTP server serve the same table under its own port.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { integer, options as optionsOf, string } from '../../core/check.js';
import { listening } from '../../listening.js';
import { formatName } from './name.js';

export interface MetadataServerOptions {
  /** Address to listen on. Default 127.0.0.1. */
  host?: string;
  /** Default 8080, as stock; 0: one that is free. */
  port?: number;
  /** Default 65,536. */
  maxKeys?: number;
  /** Bytes of one value. Default 16 MiB. */
  maxValueBytes?: number;
  /** Bytes of all keys and values. Default 256 MiB. */
  maxBytes?: number;
}

const MAX_KEY_BYTES = 1024;
const REQUEST_MS = 10_000;
/** Where engines answer handshakes: a second engine that claims the same name is refused, as stock does. */
const PLACE_KEY = /(^|\/)rpc_meta\//;

/** The table, behind any HTTP server. */
export class MetadataTable {
  readonly #values = new Map<string, Buffer>();
  readonly #maxKeys: number;
  readonly #maxValueBytes: number;
  readonly #maxBytes: number;
  #bytes = 0;

  constructor({
    maxKeys = 65_536,
    maxValueBytes = 16 * 2 ** 20,
    maxBytes = 256 * 2 ** 20,
  }: MetadataServerOptions = {}) {
    this.#maxKeys = integer('options.maxKeys', maxKeys, 1, 2 ** 24);
    this.#maxValueBytes = integer('options.maxValueBytes', maxValueBytes, 1, 2 ** 30);
    this.#maxBytes = integer('options.maxBytes', maxBytes, 1, Number.MAX_SAFE_INTEGER);
  }

  get figures(): { keys: number; bytes: number } {
    return { keys: this.#values.size, bytes: this.#bytes };
  }

  /** Answers requests for `/metadata`; false, and nothing done, for other paths. */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const url = URL.canParse(request.url ?? '', 'http://table') ? new URL(request.url!, 'http://table') : undefined;
    if (url?.pathname !== '/metadata') return false;
    this.#answer(request, response, url.searchParams.get('key')).catch((error: Error) => {
      if (!response.headersSent) text(response, 400, error.message);
    });
    return true;
  }

  async #answer(request: IncomingMessage, response: ServerResponse, key: string | null): Promise<void> {
    if (!key) return text(response, 400, 'a key is needed: /metadata?key=…');
    if (Buffer.byteLength(key) > MAX_KEY_BYTES) return text(response, 400, `the key is over ${MAX_KEY_BYTES} bytes`);
    switch (request.method) {
      case 'GET': {
        const value = this.#values.get(key);
        if (!value) return text(response, 404, 'metadata not found');
        response.writeHead(200, { 'content-type': 'application/json' }).end(value);
        return;
      }
      case 'PUT': {
        const value = await this.#body(request);
        // What is left of a body that is too long is not worth reading.
        if (!value) response.setHeader('connection', 'close');
        return text(response, ...(value ? this.#put(key, value) : this.#tooLong()));
      }
      case 'DELETE':
        if (!this.#remove(key)) return text(response, 404, 'metadata not found');
        return text(response, 200, 'metadata deleted');
      default:
        response.setHeader('allow', 'GET, PUT, DELETE');
        return text(response, 405, `${request.method} is not served`);
    }
  }

  #tooLong(): [status: number, message: string] {
    return [413, `the value is over ${this.#maxValueBytes} bytes`];
  }

  #put(key: string, value: Buffer): [status: number, message: string] {
    const old = this.#values.get(key);
    if (old && PLACE_KEY.test(key) && !old.equals(value)) return [400, 'Duplicate rpc_meta key not allowed'];
    const more = value.length - (old?.length ?? -Buffer.byteLength(key));
    if ((!old && this.#values.size >= this.#maxKeys) || this.#bytes + more > this.#maxBytes) {
      return [507, `the table is full: ${this.#values.size} keys, ${this.#bytes} bytes`];
    }
    this.#values.set(key, value);
    this.#bytes += more;
    return [200, 'metadata updated'];
  }

  #remove(key: string): boolean {
    const value = this.#values.get(key);
    if (!value) return false;
    this.#bytes -= value.length + Buffer.byteLength(key);
    return this.#values.delete(key);
  }

  /** Undefined where it is too long. */
  async #body(request: IncomingMessage): Promise<Buffer | undefined> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of request) {
      bytes += chunk.length;
      if (bytes > this.#maxValueBytes) return undefined;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}

function text(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'text/plain' }).end(`${message}\n`);
}

export class MetadataServer {
  /** What engines are given as their metadata setting. */
  readonly url: string;
  readonly #server: Server;
  readonly #table: MetadataTable;

  private constructor(server: Server, table: MetadataTable) {
    this.#server = server;
    this.#table = table;
    const { address, port } = server.address() as AddressInfo;
    this.url = `http://${formatName({ host: address, port })}/metadata`;
  }

  /** Throws ERR_INVALID_ARGUMENT, and ERR_PEER where the port cannot be had. */
  static async listen(options?: MetadataServerOptions): Promise<MetadataServer> {
    const given = optionsOf('options', options);
    const host = string('options.host', given.host ?? '127.0.0.1');
    const port = integer('options.port', given.port ?? 8080, 0, 65_535);
    const table = new MetadataTable(given);
    const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
      if (table.handle(request, response)) return;
      if (request.url === '/health') text(response, 200, 'OK');
      else text(response, 404, 'no such page; /metadata?key=…, /health');
    });
    await listening(server, host, port);
    return new MetadataServer(server, table);
  }

  get figures(): { keys: number; bytes: number } {
    return this.#table.figures;
  }

  /** Ends all connections. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}
