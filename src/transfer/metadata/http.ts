/**
 * Metadata in an HTTP server, as stock engines use it: two keys an engine, `rpc_meta` for where it answers handshakes and
 * `ram` for its descriptor, which is put again whenever its buffers change. Only status 200 is success.
 */
import { request } from 'node:http';
import { errors } from '../../core/errors.js';
import { type Limits, watch } from '../limits.js';
import type { Place } from '../tcp/address.js';
import type { Metadata } from './backend.js';
import { isObject, parseJson } from './json.js';
import { isHost } from './name.js';

/** The stock client's. */
const TOTAL_MS = 3000;
const CONNECT_MS = 1500;
const MAX_ANSWER_BYTES = 16 * 2 ** 20;

type Method = 'GET' | 'PUT' | 'DELETE';

interface Answer {
  status: number;
  body: string;
}

export class HttpMetadata implements Metadata {
  readonly #url: string;
  readonly #prefix: string;

  constructor(url: string) {
    this.#url = url;
    const cluster = process.env.MC_METADATA_CLUSTER_ID;
    this.#prefix = cluster ? `mooncake/${cluster}` : 'mooncake';
  }

  async publish(name: string, place: Place, descriptor: string): Promise<void> {
    const endpoint = JSON.stringify({ ip_or_host_name: place.host, rpc_port: place.port });
    await this.#must('PUT', this.#placeKey(name), undefined, endpoint);
    await this.#must('PUT', this.#descriptorKey(name), undefined, descriptor);
  }

  /** Both are tried, also where the first fails: what stays behind would name an engine that is gone. */
  async withdraw(name: string): Promise<void> {
    const keys = [this.#descriptorKey(name), this.#placeKey(name)];
    const results = await Promise.allSettled(keys.map((key) => this.#ask('DELETE', key)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  find(name: string, limits: Limits): Promise<string> {
    return this.#must('GET', this.#descriptorKey(name), limits);
  }

  async place(name: string, limits: Limits): Promise<Place> {
    const json = parseJson('where an engine answers', await this.#must('GET', this.#placeKey(name), limits));
    const { ip_or_host_name: host, rpc_port: port } = isObject(json) ? json : {};
    const isPort = typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535;
    if (typeof host !== 'string' || !isHost(host) || !isPort) {
      throw errors.protocol('metadata without host and port of an engine', json);
    }
    return { host, port };
  }

  #placeKey(name: string): string {
    return `${this.#prefix}/rpc_meta/${name}`;
  }

  #descriptorKey(name: string): string {
    return name.includes('/') ? `${this.#prefix}/${name}` : `${this.#prefix}/ram/${name}`;
  }

  async #must(method: Method, key: string, limits?: Limits, body?: string): Promise<string> {
    const { status, body: answer } = await this.#ask(method, key, limits, body);
    if (status !== 200) throw errors.peer(this.#url, `${method} ${key} was answered with ${status} ${answer.trim()}`);
    return answer;
  }

  #ask(method: Method, key: string, limits: Limits = { timeoutMs: TOTAL_MS }, body?: string): Promise<Answer> {
    const url = new URL(this.#url);
    url.searchParams.set('key', key);
    const bounded = { ...limits, timeoutMs: Math.min(limits.timeoutMs, TOTAL_MS) };
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => {
        stop();
        clearTimeout(connecting);
        asking.destroy();
        reject(error);
      };
      const refuse = (why: string, cause?: unknown) => fail(errors.peer(this.#url, `${method} ${key}: ${why}`, cause));
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const asking = request(url, { method, headers, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_ANSWER_BYTES) refuse('the answer is longer than any descriptor');
          else chunks.push(chunk);
        });
        response.on('error', (error) => refuse(error.message, error));
        response.on('end', () => {
          stop();
          resolve({ status: response.statusCode!, body: Buffer.concat(chunks).toString() });
        });
      });
      const stop = watch(`${method} ${key} at ${this.#url}`, bounded, fail);
      const connecting = setTimeout(() => refuse(`no connection within ${CONNECT_MS} ms`), CONNECT_MS);
      asking.on('socket', (socket) => socket.once('connect', () => clearTimeout(connecting)));
      asking.on('error', (error) => refuse(error.message, error));
      asking.end(body);
    });
  }
}
