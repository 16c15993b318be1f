/** One HTTP request to a metadata store: a connection of its own, bounded in time and bytes, closed with its answer. */
import { type RequestOptions, request } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { errors } from '../../core/errors.js';
import { type Limits, watch } from '../limits.js';
import { MAX_VALUE_BYTES } from './keyed.js';

export interface Question {
  method: 'GET' | 'PUT' | 'DELETE' | 'POST';
  /** For messages: "GET <key>". */
  what: string;
  limits: Limits;
  /** How long a connection may take. */
  connectMs: number;
  /** JSON. */
  body?: string;
  headers?: Record<string, string>;
  /** For https. */
  tls?: ConnectionOptions;
}

export interface Answer {
  status: number;
  body: string;
}

/** Any status resolves. Throws ERR_PEER naming `url`, ERR_TIMEOUT, ERR_ABORTED. */
export function ask(url: URL, { method, what, limits, connectMs, body, headers, tls }: Question): Promise<Answer> {
  const isSecure = url.protocol === 'https:';
  const options: RequestOptions = {
    method,
    headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
    agent: false,
    ...tls,
  };
  const name = `${url.origin}${url.pathname}`;
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      stop();
      asking.destroy();
      reject(error);
    };
    const refuse = (why: string, cause?: unknown) => fail(errors.peer(name, `${what}: ${why}`, cause));
    const asking = (isSecure ? secureRequest : request)(url, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        // Etcd answers in base64.
        if (bytes > 2 * MAX_VALUE_BYTES) refuse('the answer is longer than any descriptor');
        else chunks.push(chunk);
      });
      response.on('error', (error) => refuse(error.message, error));
      response.on('end', () => {
        stop();
        resolve({ status: response.statusCode!, body: Buffer.concat(chunks).toString() });
      });
    });
    const unwatch = watch(`${what} at ${name}`, limits, fail);
    const connecting = setTimeout(() => refuse(`no connection within ${connectMs} ms`), connectMs);
    const stop = () => {
      unwatch();
      clearTimeout(connecting);
    };
    const connected = isSecure ? 'secureConnect' : 'connect';
    asking.on('socket', (socket) => socket.once(connected, () => clearTimeout(connecting)));
    asking.on('error', (error) => refuse(error.message, error));
    asking.end(body);
  });
}
