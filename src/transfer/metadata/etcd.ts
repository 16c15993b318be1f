/**
 * Metadata in etcd, over the JSON gateway that its servers have on the same port as gRPC (versions 3.4 and later): four
 * requests do not make up for a gRPC client among the dependencies. Members are tried in turn, the last that answered first;
 * an answer of a member, also a refusal, is the answer.
 *
 *   etcd://[user:password@]host:port[,host:port…]     each host may say http:// or https:// itself
 *
 * Formats: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. Keys and values travel in base64. The variables MC_ETCD_… are
 * those of stock engines.
 */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import { errors, MooncakeError } from '../../core/errors.js';
import { type Limits, shared } from '../limits.js';
import { type Answer, ask } from './ask.js';
import { isObject, type Json, parseJson } from './json.js';
import type { KeyStore } from './keyed.js';
import { type Credentials, readUrl } from './url.js';

/** The stock client's. */
const TOTAL_MS = 5000;
const CONNECT_MS = 1500;
const DEFAULT_PORT = 2379;
/** gRPC's status codes, as the gateway says them. */
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;
const FAILED_PRECONDITION = 9;

const base64 = (text: string) => Buffer.from(text).toString('base64');

export class EtcdStore implements KeyStore {
  readonly name: string;
  readonly #members: URL[];
  readonly #credentials?: Credentials;
  readonly #tls?: ConnectionOptions;
  /** Of #members, the one that answered last. */
  #first = 0;
  /** Of the session, where there are credentials; '' where the server wants none. */
  #token?: string;

  /** Throws ERR_INVALID_ARGUMENT naming `argument`, or the variable that is wrong. */
  constructor(argument: string, setting: string) {
    const { credentials, hosts } = readUrl(argument, setting, 'etcd', DEFAULT_PORT);
    this.#tls = tlsOfEnvironment();
    const scheme = this.#tls ? 'https' : 'http';
    this.#members = hosts.map((host) => new URL(host.includes('://') ? host : `${scheme}://${host}`));
    this.#credentials = credentials ?? credentialsOfEnvironment();
    this.name = `etcd://${this.#members.map(({ host }) => host).join(',')}`;
  }

  async get(key: string, limits: Limits): Promise<string | undefined> {
    const { kvs } = await this.#call('/v3/kv/range', `GET ${key}`, { key: base64(key) }, limits);
    if (kvs === undefined) return undefined;
    const value = Array.isArray(kvs) && isObject(kvs[0]) ? (kvs[0].value ?? '') : undefined;
    if (typeof value !== 'string') throw errors.protocol('an answer of etcd without the value of its key', kvs);
    return Buffer.from(value, 'base64').toString();
  }

  async put(key: string, value: string): Promise<void> {
    await this.#call('/v3/kv/put', `PUT ${key}`, { key: base64(key), value: base64(value) });
  }

  async delete(key: string): Promise<void> {
    await this.#call('/v3/kv/deleterange', `DELETE ${key}`, { key: base64(key) });
  }

  async #call(path: string, what: string, body: object, limits: Limits = { timeoutMs: TOTAL_MS }) {
    const left = shared({ ...limits, timeoutMs: Math.min(limits.timeoutMs, TOTAL_MS) });
    const usesToken = this.#credentials !== undefined && this.#token !== undefined;
    const answer = await this.#authorized(path, what, body, left);
    if (answer.code !== UNAUTHENTICATED || !usesToken) return this.#must(what, answer);
    // Sessions end, and their server may have been restarted.
    this.#token = undefined;
    return this.#must(what, await this.#authorized(path, what, body, left));
  }

  async #authorized(path: string, what: string, body: object, left: () => Limits): Promise<Reply> {
    if (this.#credentials && this.#token === undefined) this.#token = await this.#signIn(this.#credentials, left);
    return this.#ask(path, what, body, left, this.#token ? { authorization: this.#token } : {});
  }

  async #signIn({ user, password }: Credentials, left: () => Limits): Promise<string> {
    const what = `signing in as ${user}`;
    const reply = await this.#ask('/v3/auth/authenticate', what, { name: user, password }, left, {});
    // Credentials for a server that asks for none: as etcd's own client takes it.
    if (reply.code === FAILED_PRECONDITION) return '';
    const { token } = this.#must(what, reply);
    if (typeof token !== 'string') throw errors.protocol('an answer of etcd without the token of a session', token);
    return token;
  }

  #must(what: string, { status, code, json }: Reply): { [key: string]: Json } {
    if (status === 200) return json;
    const why = typeof json.message === 'string' ? json.message : typeof json.error === 'string' ? json.error : '';
    throw errors.peer(this.name, `${what} was answered with ${status}, code ${code ?? 'none'}: ${why}`);
  }

  /** Of the first member that answers; each that is left has its share of the time that is left. */
  async #ask(path: string, what: string, body: object, left: () => Limits, headers: Record<string, string>) {
    const tried: unknown[] = [];
    const count = this.#members.length;
    for (let turn = 0; turn < count; turn++) {
      const at = (this.#first + turn) % count;
      const limits = left();
      const timeoutMs = Math.max(1, Math.ceil(limits.timeoutMs / (count - turn)));
      try {
        const answer = await ask(new URL(path, this.#members[at]), {
          method: 'POST',
          what,
          limits: { ...limits, timeoutMs },
          connectMs: CONNECT_MS,
          body: JSON.stringify(body),
          headers,
          tls: this.#tls,
        });
        const reply = read(answer);
        this.#first = at;
        if (reply.code !== UNAVAILABLE || turn === count - 1) return reply;
      } catch (error) {
        if (!(error instanceof MooncakeError) || error.code === 'ERR_ABORTED' || count === 1) throw error;
        tried.push(error);
      }
    }
    const why = tried.map((error) => (error as Error).message).join('; ');
    throw errors.peer(this.name, `no member answered: ${why}`, tried[0]);
  }
}

interface Reply {
  status: number;
  /** gRPC's, of a refusal. */
  code?: number;
  json: { [key: string]: Json };
}

/** Throws ERR_PROTOCOL for what is no answer of etcd. */
function read({ status, body }: Answer): Reply {
  const json = parseJson(`an answer of etcd (${status})`, body);
  if (!isObject(json)) throw errors.protocol(`an answer of etcd (${status}) that is no object`, body.slice(0, 200));
  return { status, code: typeof json.code === 'number' ? json.code : undefined, json };
}

function fileOf(variable: string): string | undefined {
  const path = process.env[variable];
  if (!path) return undefined;
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw errors.invalidArgument(variable, path, `a file that can be read (${(error as Error).message})`);
  }
}

/** Lines "username=…" and "password=…". */
function credentialsOfEnvironment(): Credentials | undefined {
  const text = fileOf('MC_ETCD_CONF_FILE');
  if (text === undefined) return undefined;
  const find = (name: string) => new RegExp(`^[ \\t]*${name}[ \\t]*=(.*)$`, 'm').exec(text)?.[1].trim();
  const [user, password] = [find('username'), find('password')];
  if (user && password) return { user, password };
  throw errors.invalidArgument(
    'MC_ETCD_CONF_FILE',
    process.env.MC_ETCD_CONF_FILE,
    'a file with username= and password=',
  );
}

/** Undefined: no TLS, unless a member's address asks for it. */
function tlsOfEnvironment(): ConnectionOptions | undefined {
  const ca = fileOf('MC_ETCD_TLS_CA_CERT');
  const { MC_ETCD_TLS_SERVER_NAME: servername, MC_ETCD_TLS_INSECURE_SKIP_VERIFY: skip = '' } = process.env;
  if (!/^(true|false|)$/i.test(skip)) {
    throw errors.invalidArgument('MC_ETCD_TLS_INSECURE_SKIP_VERIFY', skip, 'true or false');
  }
  const isUnverified = skip.toLowerCase() === 'true';
  if (ca === undefined && !isUnverified) return undefined;
  return { ...(ca && { ca }), ...(servername && { servername }), rejectUnauthorized: !isUnverified };
}
