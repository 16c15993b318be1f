/** Metadata in an HTTP server (server.ts, and the stock ones): GET, PUT and DELETE ?key=…; only status 200 is success. */
import { errors } from '../../core/errors.js';
import type { Limits } from '../limits.js';
import { type Answer, ask, type Question } from './ask.js';
import type { KeyStore } from './keyed.js';

/** The stock client's. */
const TOTAL_MS = 3000;
const CONNECT_MS = 1500;

export class HttpStore implements KeyStore {
  readonly name: string;

  constructor(url: string) {
    this.name = url;
  }

  async get(key: string, limits: Limits): Promise<string | undefined> {
    const answer = await this.#ask('GET', key, limits);
    return answer.status === 404 ? undefined : this.#must(`GET ${key}`, answer);
  }

  async put(key: string, value: string): Promise<void> {
    this.#must(`PUT ${key}`, await this.#ask('PUT', key, undefined, value));
  }

  async delete(key: string): Promise<void> {
    await this.#ask('DELETE', key);
  }

  #must(what: string, { status, body }: Answer): string {
    if (status !== 200) throw errors.peer(this.name, `${what} was answered with ${status} ${body.trim()}`);
    return body;
  }

  #ask(method: Question['method'], key: string, limits: Limits = { timeoutMs: TOTAL_MS }, body?: string) {
    const url = new URL(this.name);
    url.searchParams.set('key', key);
    const bounded = { ...limits, timeoutMs: Math.min(limits.timeoutMs, TOTAL_MS) };
    return ask(url, { method, what: `${method} ${key}`, limits: bounded, connectMs: CONNECT_MS, body });
  }
}
