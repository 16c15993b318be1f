/**
 * Lets other processes attach to a store: answers the requests of the service `mooncake-store`. Each client has an id,
 * given by us and good on its own connection alone; when the connection dies, the puts that the client has not ended
 * are taken back, but for those that it may have been writing to others than us, which are left to expire. Whatever a
 * client sends is checked here or in the metadata service before it changes anything.
 */
import { errors, MooncakeError, show } from '../core/errors.js';
import type { Keys } from '../core/keys.js';
import { Keys as KeyList } from '../core/keys.js';
import type { MetadataClient, Outcome, Replica, Uuid } from '../master/api.js';
import type { Peer, RequestContext, Transfer } from '../transfer/transfer.js';
import { MAX_BATCH } from './batch.js';
import { keyName, uuid } from './session.js';
import {
  configOf,
  f64,
  flag,
  type Message,
  message,
  packed,
  packInfos,
  packPlaces,
  ReplicaRows,
  SERVICE,
  text,
  unpackKeys,
  unpackSums,
  VERSION,
} from './wire.js';

export interface Served {
  /** The address under which the metadata knows the segments; clients reach them through the peer they asked. */
  readonly home: string;
  /** How long the metadata keeps the room of a put back that does not end. */
  readonly putReleaseMs: number;
  readonly metadata: MetadataClient;
  /** Hello.engines */
  readonly engines?: string;
  /** Reads objects where they lie and removes those that are corrupt. */
  examine(keys: Keys, tenant: string): Promise<void>;
}

/** Clients on one connection. */
const MAX_CLIENTS = 1024;

interface OpenPut {
  readonly key: Uint8Array;
  readonly tenant: string;
  readonly upsert: boolean;
  /** All that is written for it passes through the owner, who sees its end; what is on its way to others may still land. */
  readonly endsHere: boolean;
}

interface Client {
  readonly id: Uuid;
  /** Puts started and not ended. */
  readonly open: Map<string, OpenPut>;
  gone: boolean;
}

class StoreServer {
  readonly #served: Served;
  readonly #clients = new Map<Peer, Map<Uuid, Client>>();

  constructor(served: Served) {
    this.#served = served;
  }

  async answer(request: unknown, { peer, signal }: RequestContext): Promise<unknown> {
    // Whoever gave up or is gone must not start anything any more.
    if (signal.aborted) throw errors.aborted(signal.reason);
    const asked = message('the request', request);
    const call = text('call', asked.call);
    if (call === 'hello') return this.#hello(peer, asked.version);
    const client = this.#clients.get(peer)?.get(text('client', asked.client));
    if (client === undefined) throw foreign(asked.client);
    return this.#call(call, client, asked, signal);
  }

  /**
   * No more clients. What they have not ended is left to expire: their connections live on, and writes that are under way
   * on them must not land in room that was given away.
   */
  close(): void {
    for (const clients of this.#clients.values()) for (const client of clients.values()) client.gone = true;
    this.#clients.clear();
  }

  /** Ends the connections of all clients: what they were told does not hold any more. */
  disown(): void {
    for (const peer of this.#clients.keys()) void peer.close();
  }

  #hello(peer: Peer, version: unknown): Message {
    if (version !== VERSION)
      throw errors.notSupported(`version ${version} of ${SERVICE}`, `this is version ${VERSION}`);
    let clients = this.#clients.get(peer);
    if (clients === undefined) {
      this.#clients.set(peer, (clients = new Map()));
      void peer.closed.then(() => {
        for (const client of this.#clients.get(peer)?.values() ?? []) void this.#end(client);
        this.#clients.delete(peer);
      });
    }
    if (clients.size >= MAX_CLIENTS) throw errors.queueFull(MAX_CLIENTS);
    const client: Client = { id: uuid(), open: new Map(), gone: false };
    clients.set(client.id, client);
    const { home, putReleaseMs, engines } = this.#served;
    const hello = { version: VERSION, client: client.id, home, putReleaseMs };
    return engines === undefined ? hello : { ...hello, engines };
  }

  async #call(call: string, client: Client, asked: Message, signal: AbortSignal): Promise<unknown> {
    const { metadata } = this.#served;
    if (call === 'bye') return this.#bye(client);
    if (call === 'stats') return metadata.stats();
    if (call === 'segments') return metadata.segments();
    const tenant = text('tenant', asked.tenant);
    switch (call) {
      case 'removeByRegex':
        return metadata.removeByRegex(text('pattern', asked.pattern), flag('force', asked.force), tenant);
      case 'removeAll':
        return metadata.removeAll(flag('force', asked.force), tenant);
      case 'keys':
        return metadata.keys(tenant);
      case 'replicasByRegex':
        return packFound(await metadata.replicasByRegex(text('pattern', asked.pattern), tenant));
    }
    const keys = unpackKeys(asked, MAX_BATCH);
    switch (call) {
      case 'putStart':
      case 'upsertStart':
        return packPlaces(await this.#start(client, keys, asked, tenant, call === 'upsertStart', signal));
      case 'putEnd':
      case 'upsertEnd': {
        const statuses = await metadata[call](client.id, keys, unpackSums(asked, keys.length), tenant);
        forget(client, keys, tenant);
        return packed(Int32Array.from(statuses));
      }
      case 'putRevoke':
      case 'upsertRevoke': {
        const statuses = await metadata[call](client.id, keys, tenant);
        forget(client, keys, tenant);
        return packed(Int32Array.from(statuses));
      }
      case 'getReplicas':
      case 'peek':
        return packInfos(await metadata[call](keys, tenant));
      case 'suspect':
        await this.#served.examine(keys, tenant);
        return null;
      case 'exist':
        return packed(await metadata.exist(keys, tenant));
      case 'remove':
        return packed(Int32Array.from(await metadata.remove(keys, flag('force', asked.force), tenant)));
    }
    throw errors.notSupported(`call ${call} of ${SERVICE}`, `version ${VERSION} has none of that name`);
  }

  async #start(
    client: Client,
    keys: Keys,
    asked: Message,
    tenant: string,
    upsert: boolean,
    signal: AbortSignal,
  ): Promise<Outcome<Replica[]>[]> {
    const { metadata, engines, home } = this.#served;
    const sizes = f64('sizes', asked.sizes, keys.length);
    const config = configOf(message('config', asked.config));
    const start = upsert ? metadata.upsertStart : metadata.putStart;
    const outcomes = await start.call(metadata, client.id, keys, sizes, config, tenant);
    const started: OpenPut[] = [];
    for (const [i, outcome] of outcomes.entries()) {
      if (!outcome.ok) continue;
      const endsHere = engines === undefined || outcome.value.every(({ endpoint }) => endpoint === home);
      started.push({ key: keys.at(i).slice(), tenant, upsert, endsHere });
    }
    // The answer reaches nobody: nobody would write or end these puts.
    if (client.gone || signal.aborted) await this.#revoke(client.id, started);
    else for (const put of started) client.open.set(keyName(put.key, tenant), put);
    return outcomes;
  }

  async #bye(client: Client): Promise<null> {
    for (const clients of this.#clients.values()) clients.delete(client.id);
    await this.#end(client);
    return null;
  }

  #end(client: Client): Promise<void> {
    client.gone = true;
    const open = [...client.open.values()];
    client.open.clear();
    const ended = open.filter(({ endsHere }) => endsHere);
    return this.#revoke(client.id, ended);
  }

  async #revoke(client: Uuid, puts: readonly OpenPut[]): Promise<void> {
    const { metadata } = this.#served;
    for (const { key, tenant, upsert } of puts) {
      const revoke = upsert ? metadata.upsertRevoke : metadata.putRevoke;
      await revoke.call(metadata, client, KeyList.from([key]), tenant);
    }
  }
}

function foreign(client: unknown) {
  const why = `${show(client)} is no client of this connection`;
  return new MooncakeError('ERR_NOT_OWNER', why, { argument: 'client', value: client });
}

function forget(client: Client, keys: Keys, tenant: string): void {
  for (let i = 0; i < keys.length; i++) client.open.delete(keyName(keys.at(i), tenant));
}

function packFound(found: ReadonlyMap<string, readonly Replica[]>): Message {
  const rows = new ReplicaRows();
  const entries = [...found].map(([key, replicas]) => [key, replicas.map((each) => rows.row(each))]);
  return { found: entries, segments: rows.segments };
}

export interface Serving {
  /** No more clients. */
  end(): void;
  /** Ends the connections of all clients, who may come back. */
  disown(): void;
}

/** Serves a store over a transfer. */
export function serveStore(transfer: Transfer, served: Served): Serving {
  const server = new StoreServer(served);
  const stop = transfer.serve(SERVICE, (request, context) => server.answer(request, context));
  return {
    end: () => {
      stop();
      server.close();
    },
    disown: () => server.disown(),
  };
}
