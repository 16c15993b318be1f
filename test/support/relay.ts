/**
 * A TCP relay between a client and a server under test, which can change, hold back, swallow or cut what passes: the
 * faults of a network on one machine.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** Towards the server, or back from it. */
export type Direction = 'up' | 'down';

export interface RelayOptions {
  /**
   * What is passed on in place of a chunk: the chunk (changed in place, or not), another buffer, or null to swallow it. A
   * promise holds back this direction of the connection until it resolves.
   */
  onChunk?: (direction: Direction, chunk: Buffer, connection: number) => MaybePromise<Uint8Array | null>;
}

type MaybePromise<T> = T | Promise<T>;

export interface Relay {
  readonly port: number;
  /** Connections made so far. */
  readonly connections: number;
  /** Cuts every open connection with a reset. */
  cut(): void;
  /** Cuts, and listens no more. */
  close(): Promise<void>;
}

export async function startRelay(targetPort: number, options: RelayOptions = {}): Promise<Relay> {
  const sockets = new Set<Socket>();
  let connections = 0;

  function pass(direction: Direction, from: Socket, to: Socket, connection: number): void {
    let last: Promise<void> = Promise.resolve();
    from.on('data', (chunk: Buffer) => {
      from.pause();
      last = last.then(async () => {
        const out = options.onChunk ? await options.onChunk(direction, chunk, connection) : chunk;
        if (out && out.length > 0 && !to.destroyed && !to.write(out)) {
          await new Promise<void>((resolve) => {
            const done = () => {
              to.off('drain', done).off('close', done);
              resolve();
            };
            to.on('drain', done).on('close', done);
          });
        }
        from.resume();
      });
    });
    from.on('end', () => void last.then(() => to.end()));
    from.on('error', () => to.resetAndDestroy());
    from.on('close', () => sockets.delete(from));
    sockets.add(from);
  }

  const server = createServer({ allowHalfOpen: true }, (client) => {
    const connection = connections++;
    const upstream = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
    client.setNoDelay(true);
    upstream.setNoDelay(true);
    pass('up', client, upstream, connection);
    pass('down', upstream, client, connection);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of [...sockets]) socket.resetAndDestroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections;
    },
    cut,
    close() {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
