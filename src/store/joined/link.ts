/**
 * The connection to Mooncake's master: one, made when it is needed, made anew when it was lost. After a failure nobody tries
 * again before a pause that doubles up to a second: until then calls fail at once with what went wrong, as a cache that
 * makes its callers wait is worse than a miss.
 *
 * The kernel of a master that hangs goes on taking connections: a connection counts when the master has answered on it, and
 * whoever finds that it answers no more (`isSilent`) ends it for all.
 */
import { errors, MooncakeError } from '../../core/errors.js';
import { RpcClient } from '../../rpc/client.js';
import type { Method } from '../../rpc/method.js';
import { METHODS } from '../../rpc/schemas/v0_3_13.js';
import { type Limits, shared, watch } from '../../transfer/limits.js';
import { formatName } from '../../transfer/metadata/name.js';
import type { Place } from '../../transfer/tcp/address.js';

const CONNECT_MS = 3000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;

export class MasterLink {
  /** host:port. */
  readonly address: string;
  readonly #place: Place;
  #client?: RpcClient;
  #dialing?: Promise<RpcClient>;
  #failure?: { error: unknown; until: number };
  #pauseMs = 0;
  #closed = false;
  #closing?: NodeJS.Timeout;
  /** Connected, and not greeted yet. */
  #dialed?: RpcClient;

  constructor(place: Place) {
    this.#place = place;
    this.address = formatName(place);
  }

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  /** Throws ERR_PEER where no master answers, and what RpcClient throws. */
  async call<A, R>(method: Method<A, R>, args: A, limits: Limits): Promise<R> {
    const left = shared(limits);
    const client = this.#client ?? (await this.#connected(left()));
    return client.call(method, args, left());
  }

  /** Waits for the connection no longer than the caller may. */
  #connected(limits: Limits): Promise<RpcClient> {
    return new Promise((resolve, reject) => {
      const stop = watch(`connecting to the master at ${this.address}`, limits, reject);
      this.#dial().then(resolve, reject).finally(stop);
    });
  }

  async #dial(): Promise<RpcClient> {
    if (this.#closed) throw errors.closed('the store');
    if (this.#dialing) return this.#dialing;
    if (this.#failure && performance.now() < this.#failure.until) throw this.#failure.error;
    this.#dialing = this.#open();
    try {
      return await this.#dialing;
    } finally {
      this.#dialing = undefined;
    }
  }

  async #open(): Promise<RpcClient> {
    const { host, port } = this.#place;
    const left = shared({ timeoutMs: CONNECT_MS });
    try {
      const client = await RpcClient.connect(host, port, left());
      try {
        if (this.#closed) throw errors.closed('the store');
        this.#dialed = client;
        await client.call(METHODS.ServiceReady, {}, left());
      } catch (error) {
        client.close();
        throw error;
      } finally {
        this.#dialed = undefined;
      }
      this.#pauseMs = 0;
      this.#failure = undefined;
      this.#client = client;
      void client.closed.then((reason) => this.#lost(client, reason));
      return client;
    } catch (error) {
      const failure = isTimeout(error) ? this.#silence(error) : error;
      this.#failed(failure);
      throw failure;
    }
  }

  /** The master has not answered in time what it answers at once: all that waits for it fails now. */
  isSilent(error: unknown): void {
    if (isTimeout(error)) this.#client?.close(this.#silence(error));
  }

  #silence(error: unknown): MooncakeError {
    return errors.peer(this.address, 'the master does not answer', error);
  }

  #lost(client: RpcClient, reason: MooncakeError): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#failed(reason);
  }

  /** Pauses differ from client to client, lest all come back to a restarted master at once. */
  #failed(error: unknown): void {
    this.#pauseMs = Math.min(LONGEST_PAUSE_MS, this.#pauseMs === 0 ? FIRST_PAUSE_MS : 2 * this.#pauseMs);
    this.#failure = { error, until: performance.now() + this.#pauseMs * (0.5 + Math.random() / 2) };
  }

  /** Closes when so much time has passed, unless it was closed before: until then goodbyes are said. */
  closeWithin(milliseconds: number): void {
    this.#closing ??= setTimeout(() => this.close(), milliseconds);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#closing);
    this.#client?.close();
    this.#client = undefined;
    this.#dialed?.close();
  }
}

const isTimeout = (error: unknown) => error instanceof MooncakeError && error.code === 'ERR_TIMEOUT';
