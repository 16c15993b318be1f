/**
 * Metadata in Redis or Valkey. Engines ask rarely, when one opens another or registers memory, so each question is a
 * connection of its own, with sign-in, database and command in one write: nothing to keep alive, to reconnect, or to close later.
 * That is less than a client library would need to be told, so there is none (resp.ts).
 *
 *   redis://[[user]:password@]host:port[/database]     rediss://… for TLS, with the authorities that Node trusts
 *
 * MC_REDIS_USERNAME, MC_REDIS_PASSWORD and MC_REDIS_DB_INDEX are those of stock engines; the setting goes before them.
 */
import { connect, isIP } from 'node:net';
import { connect as connectSecurely } from 'node:tls';
import { errors } from '../../core/errors.js';
import { type Limits, watch } from '../limits.js';
import { parseAddress } from '../tcp/address.js';
import type { KeyStore } from './keyed.js';
import { formatCommand, RedisError, type Reply, ReplyReader } from './resp.js';
import { readUrl } from './url.js';

const TOTAL_MS = 3000;
const DEFAULT_PORT = 6379;
const MAX_DATABASE = 2 ** 31 - 1;

export class RedisStore implements KeyStore {
  readonly name: string;
  readonly #host: string;
  readonly #port: number;
  readonly #isSecure: boolean;
  /** Before each command. */
  readonly #greeting: string[][];

  /** Throws ERR_INVALID_ARGUMENT naming `argument`, or the variable that is wrong. */
  constructor(argument: string, setting: string) {
    this.#isSecure = setting.startsWith('rediss:');
    const scheme = this.#isSecure ? 'rediss' : 'redis';
    const { credentials, hosts, path } = readUrl(argument, setting, scheme, DEFAULT_PORT);
    if (hosts.length > 1) throw errors.invalidArgument(argument, hosts.join(','), `one host of ${scheme}`);
    const { host, port } = parseAddress(`tcp://${hosts[0]}`);
    this.#host = host;
    this.#port = port;
    this.name = `${scheme}://${hosts[0]}`;
    const { MC_REDIS_USERNAME = '', MC_REDIS_PASSWORD = '', MC_REDIS_DB_INDEX = '' } = process.env;
    const { user, password } = credentials ?? { user: MC_REDIS_USERNAME, password: MC_REDIS_PASSWORD };
    const database = path
      ? whichDatabase(argument, path)
      : MC_REDIS_DB_INDEX && whichDatabase('MC_REDIS_DB_INDEX', MC_REDIS_DB_INDEX);
    this.#greeting = [
      ...(password ? [user ? ['AUTH', user, password] : ['AUTH', password]] : []),
      ...(database ? [['SELECT', database]] : []),
    ];
  }

  async get(key: string, limits: Limits): Promise<string | undefined> {
    const reply = await this.#run(['GET', key], limits);
    if (reply === null) return undefined;
    if (typeof reply !== 'string') throw errors.protocol('an answer of Redis to GET that is no text', reply);
    return reply;
  }

  async put(key: string, value: string): Promise<void> {
    await this.#run(['SET', key, value]);
  }

  async delete(key: string): Promise<void> {
    await this.#run(['DEL', key]);
  }

  #run(command: string[], limits: Limits = { timeoutMs: TOTAL_MS }): Promise<Reply> {
    const [verb, key] = command;
    const what = `${verb} ${key}`;
    const commands = [...this.#greeting, command];
    const [host, port] = [this.#host, this.#port];
    const bounded = { ...limits, timeoutMs: Math.min(limits.timeoutMs, TOTAL_MS) };
    return new Promise((resolve, reject) => {
      const socket = this.#isSecure
        ? connectSecurely({ host, port, ...(!isIP(host) && { servername: host }) })
        : connect({ host, port });
      const end = (settle: () => void) => {
        unwatch();
        socket.destroy();
        settle();
      };
      const refuse = (why: string, cause?: unknown) =>
        end(() => reject(errors.peer(this.name, `${what}: ${why}`, cause)));
      const unwatch = watch(`${what} at ${this.name}`, bounded, (error) => end(() => reject(error)));
      const reader = new ReplyReader();
      socket.on('data', (chunk: Buffer) => {
        try {
          const replies = reader.push(chunk);
          const refused = replies.findIndex((reply) => reply instanceof RedisError);
          // Of a sign-in only that it failed is told: the command has the password in it.
          if (refused >= 0) refuse(`${commands[refused][0]} was refused: ${(replies[refused] as RedisError).message}`);
          else if (replies.length >= commands.length) end(() => resolve(replies[commands.length - 1]));
        } catch (error) {
          end(() => reject(error));
        }
      });
      socket.on('error', (error) => refuse(error.message, error));
      socket.on('close', () => refuse('the connection ended without an answer'));
      socket.write(commands.map(formatCommand).join(''));
    });
  }
}

function whichDatabase(argument: string, text: string): string {
  if (!/^\d{1,10}$/.test(text) || Number(text) > MAX_DATABASE) {
    throw errors.invalidArgument(argument, text, 'with the number of a database of Redis');
  }
  return Number(text) === 0 ? '' : text;
}
