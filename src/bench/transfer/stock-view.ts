/**
 * A metadata server through which an engine of ours sees another as stock engines see it: what the other says of itself
 * is asked of it by handshake and handed out less our own key. So the two speak Mooncake's wire. On loopback, for whoever
 * made it.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exchange, HANDSHAKE } from '../../transfer/metadata/handshake.js';
import { parseName } from '../../transfer/metadata/name.js';

const TIMEOUT_MS = 3000;
const DESCRIPTOR_KEY = 'mooncake/ram/';

export class StockView {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(): Promise<StockView> {
    const server = createServer(async (request, response) => {
      request.resume();
      // What the engine says of itself nobody asks for.
      if (request.method !== 'GET') return void response.end('ok');
      const key = new URL(request.url ?? '/', 'http://localhost').searchParams.get('key') ?? '';
      try {
        response.end(await describe(key));
      } catch (error) {
        response.writeHead(404).end((error as Error).message);
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new StockView(server);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/metadata`;
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

async function describe(key: string): Promise<string> {
  if (!key.startsWith(DESCRIPTOR_KEY)) throw new Error(`no ${key}`);
  const place = parseName('name', key.slice(DESCRIPTOR_KEY.length));
  const text = await exchange(place, HANDSHAKE.metadata, '{}', { timeoutMs: TIMEOUT_MS });
  // Addresses are below 2^53, so that JSON.parse keeps them.
  const { mooncake_ts: _ours, ...descriptor } = JSON.parse(text);
  return JSON.stringify(descriptor);
}
