/**
 * The HTTP server of a store node: routes with one variable part, bodies of bounded size, an answer or an error for every
 * request. Unknown paths and methods are answered as the stock service's server does.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errors, MooncakeError } from '../../core/errors.js';
import { listening } from '../../listening.js';
import { formatName } from '../../transfer/metadata/name.js';
import { toJson } from './json.js';

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Call {
  /** What stands in the variable part of the path, as its bytes. */
  readonly variable: Uint8Array;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
  /** The body as JSON. Throws ERR_INVALID_ARGUMENT. */
  json(): Promise<unknown>;
}

export type Handler = (call: Call) => Answer | Promise<Answer>;

/** `GET /api/get/{key}`: the one variable part is at the end. */
export type Routes = Readonly<Record<`${'GET' | 'PUT' | 'POST' | 'DELETE'} /${string}`, Handler>>;

export interface HttpOptions {
  readonly host: string;
  readonly port: number;
  /** Of one body. */
  readonly maxBodyBytes: number;
}

/** Header of answers whose body is the stock service's: what went wrong, with its code. */
export const REASON = 'x-mooncake-error';

const HEADERS_MS = 10_000;
const REQUEST_MS = 60_000;
/** Bodies that are held at the same time, in bodies of the largest size. */
const BODIES = 4;

type Fields = Parameters<typeof toJson>[0];

export const json = (value: Fields, status = 200): Answer => ({
  status,
  type: 'application/json; charset=utf-8',
  body: toJson(value),
});

export const text = (body: string, status = 200): Answer => ({ status, type: 'text/plain; charset=utf-8', body });

/** A refusal under the stock service's words; the reason of ours goes into a header. */
export function failed(body: Fields, error: unknown, status = 500): Answer {
  return { ...json(body, status), headers: { [REASON]: reasonOf(error) } };
}

/** One line of ASCII: a header holds nothing else. */
function reasonOf(error: unknown): string {
  const code = error instanceof MooncakeError ? error.code : 'error';
  return toJson(`${code}: ${(error as Error).message}`).slice(1, -1);
}

interface Route {
  readonly methods: Map<string, Handler>;
}

export class HttpServer {
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    const { address, port } = server.address() as AddressInfo;
    this.url = `http://${formatName({ host: address, port })}`;
  }

  /** Throws ERR_PEER where the port cannot be had. */
  static async listen(routes: Routes, { host, port, maxBodyBytes }: HttpOptions): Promise<HttpServer> {
    const table = new Map<string, Route>();
    for (const [key, handler] of Object.entries(routes)) {
      const [method, path] = key.split(' ');
      const route = table.get(path) ?? { methods: new Map() };
      table.set(path, route);
      route.methods.set(method, handler);
    }
    const bodies = new Bodies(maxBodyBytes);
    const timeouts = { headersTimeout: HEADERS_MS, requestTimeout: REQUEST_MS };
    const server = createServer(timeouts, (request, response) => {
      void answer(table, bodies, request, response).then((result) => send(request, response, result));
    });
    await listening(server, host, port);
    return new HttpServer(server);
  }

  /** No new requests; those under way are answered first, for at most so long. */
  async close(milliseconds: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), milliseconds);
    await closed;
    clearTimeout(timer);
  }
}

async function answer(
  table: ReadonlyMap<string, Route>,
  bodies: Bodies,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Answer> {
  const path = (request.url ?? '').split(/[?#]/, 1)[0];
  const cut = path.lastIndexOf('/') + 1;
  const [folder, variable] = [path.slice(0, cut), path.slice(cut)];
  const route = table.get(path) ?? (variable === '' ? undefined : table.get(`${folder}{key}`));
  if (!route) return text('404: Not Found', 404);
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const handler = route.methods.get(method);
  if (!handler) {
    const allow = [...route.methods.keys()].flatMap((one) => (one === 'GET' ? ['GET', 'HEAD'] : [one])).join(',');
    return { ...text('405: Method Not Allowed', 405), headers: { allow } };
  }
  const controller = new AbortController();
  response.once('close', () => controller.abort('the client went away'));
  const held = bodies.hold(request);
  try {
    const { signal } = controller;
    return await handler({ variable: bytesOf(variable), signal, json: async () => parse(await held.read()) });
  } catch (error) {
    return refusal(error);
  } finally {
    held.release();
  }
}

/** Bytes of bodies, over all requests. */
class Bodies {
  readonly #most: number;
  #left: number;

  constructor(most: number) {
    this.#most = most;
    this.#left = BODIES * most;
  }

  hold(request: IncomingMessage): { read(): Promise<Buffer>; release(): void } {
    let held = 0;
    const read = async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request as AsyncIterable<Buffer>) {
        held += chunk.length;
        this.#left -= chunk.length;
        if (held > this.#most) throw new BodyTooLarge();
        if (this.#left < 0) throw errors.queueFull(BODIES);
        chunks.push(chunk);
      }
      return Buffer.concat(chunks);
    };
    const release = () => {
      this.#left += held;
    };
    return { read, release };
  }
}

class BodyTooLarge extends Error {}

function refusal(error: unknown): Answer {
  if (error instanceof BodyTooLarge) return json({ error: 'Request Entity Too Large' }, 413);
  const known = error instanceof MooncakeError;
  const { message } = error as Error;
  if (!known) return json({ error: message }, 500);
  return json({ error: message }, error.code === 'ERR_INVALID_ARGUMENT' ? 400 : 503);
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw errors.invalidArgument('body', (error as Error).message, 'JSON in UTF-8');
  }
}

/** The bytes that a part of a path stands for; a percent sign that begins no byte stands for itself. */
function bytesOf(part: string): Uint8Array {
  const bytes = Buffer.from(part, 'latin1');
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    const digits = bytes[at] === 0x25 ? part.slice(at + 1, at + 3) : '';
    const isByte = /^[0-9a-f]{2}$/i.test(digits);
    bytes[length++] = isByte ? Number.parseInt(digits, 16) : bytes[at];
    if (isByte) at += 2;
  }
  return bytes.subarray(0, length);
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body, headers }: Answer): void {
  if (response.destroyed) return;
  // What is left of a body that nobody wants is not worth reading.
  if (!request.complete) response.setHeader('connection', 'close');
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.length;
  response.writeHead(status, { 'content-type': type, 'content-length': length, ...headers });
  response.end(request.method === 'HEAD' ? undefined : body);
}
