/**
 * The connections to one engine: HTTP/1.1 with keep-alive, over Node's own client. A call resolves with the response's head;
 * whatever goes wrong before is ERR_PEER, and `neverArrived` says whether the engine may have seen the request at all: only
 * then is it safe to hand the same transfer to another engine.
 */
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
} from 'node:http';
import { errors, MooncakeError } from '../core/errors.js';
import type { EngineAddress } from './address.js';

export interface Call {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Buffer;
  /** Ends the call and, later, its response. */
  readonly signal: AbortSignal;
  /** Not to be sent again on a new connection where a kept one turns out to be closed: it may have been read. */
  readonly isOnce?: boolean;
}

/** uvicorn closes connections that are idle for 5 s: ours are given up before. */
const IDLE_CONNECTION_MS = 4000;
const CONNECT_MS = 3000;
/** What fails while the connection is made. */
const UNREACHED = [
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EADDRNOTAVAIL',
  'EMFILE',
  'ERR_CONNECT',
];

class ConnectTimeout extends Error {
  readonly code = 'ERR_CONNECT';
}

export class Upstream {
  readonly address: EngineAddress;
  readonly #agent = new Agent({
    keepAlive: true,
    timeout: IDLE_CONNECTION_MS,
    scheduling: 'lifo',
    maxFreeSockets: 1024,
  });

  constructor(address: EngineAddress) {
    this.address = address;
  }

  /** @throws ERR_PEER, or the signal's reason where that is a MooncakeError, else ERR_ABORTED */
  async call(call: Call): Promise<IncomingMessage> {
    try {
      return await this.#send(call);
    } catch (error) {
      // A connection that the engine had closed while it was idle says nothing about the engine.
      if (isStale(error) && !call.isOnce && !call.signal.aborted) return await this.#send(call);
      throw error;
    }
  }

  #send({ method, path, headers, body, signal }: Call): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(reasonOf(signal));
      const { host, port, url } = this.address;
      const request: ClientRequest = httpRequest({
        agent: this.#agent,
        host,
        port,
        method,
        path,
        headers: body === undefined ? headers : { ...headers, 'content-length': body.length },
      });
      const abort = () => request.destroy(reasonOf(signal));
      signal.addEventListener('abort', abort, { once: true });
      let connecting: NodeJS.Timeout | undefined;
      request.once('socket', (socket) => {
        if (!socket.connecting) return;
        connecting = setTimeout(
          () => request.destroy(new ConnectTimeout(`no connection in ${CONNECT_MS} ms`)),
          CONNECT_MS,
        );
        socket.once('connect', () => clearTimeout(connecting));
      });
      request.once('response', (response) => {
        response.once('close', () => signal.removeEventListener('abort', abort));
        resolve(response);
      });
      request.on('error', (error: NodeJS.ErrnoException) => {
        clearTimeout(connecting);
        signal.removeEventListener('abort', abort);
        if (signal.aborted || error instanceof MooncakeError) return reject(signal.aborted ? reasonOf(signal) : error);
        const isKept = request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        reject(isKept ? new StaleConnection(url, error) : errors.peer(url, error.message, error));
      });
      request.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** A kept connection that broke before any answer. */
class StaleConnection extends MooncakeError {
  constructor(url: string, cause: Error) {
    super('ERR_PEER', `peer ${url}: ${cause.message}`, { argument: 'peer', value: url, cause });
  }
}

export const isStale = (error: unknown) => error instanceof StaleConnection;

export function reasonOf(signal: AbortSignal): MooncakeError {
  return signal.reason instanceof MooncakeError ? signal.reason : errors.aborted(signal.reason);
}

/** Whether a failed call cannot have reached the engine. */
export function neverArrived(error: unknown): boolean {
  const cause = error instanceof MooncakeError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined;
  return cause?.code !== undefined && UNREACHED.includes(cause.code);
}

/** The whole body of an answer that is small by nature. @throws ERR_PEER where it breaks off or is above `limit` bytes */
export async function bodyOf(response: IncomingMessage, url: string, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response) {
      length += chunk.length;
      if (length > limit) break;
      chunks.push(chunk);
    }
  } catch (error) {
    throw errors.peer(url, `its answer broke off: ${(error as Error).message}`, error);
  }
  if (length > limit) throw errors.peer(url, `its answer is above ${limit} bytes`);
  return Buffer.concat(chunks, length);
}
