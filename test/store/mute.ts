/** Ends that take connections and do not answer: what a process looks like that was stopped, or a way that loses bytes. */
import { connect, createServer, type Server, type Socket } from 'node:net';

interface Listening {
  readonly port: number;
  close(): void;
}

async function listen(accept: (socket: Socket) => void): Promise<Listening> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    accept(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { port: (server.address() as { port: number }).port, close };
}

/** A port that takes connections and says nothing. */
export const silent = (): Promise<Listening> => listen(() => {});

const METADATA = 1;

/**
 * An engine that answers handshakes, with memory at this address, and takes bytes without a word: moves with it never end by
 * themselves. Its name is 127.0.0.1:port.
 */
export async function muteEngine(addr: number, length: number): Promise<Listening> {
  const data = await silent();
  const handshakes = await listen((socket) => {
    socket.once('data', () => {
      const name = `127.0.0.1:${handshakes.port}`;
      const fields = { name, protocol: 'tcp', tcp_data_port: data.port, tcp_proto_version: 2 };
      const text = Buffer.from(JSON.stringify({ ...fields, buffers: [{ name, addr, length }] }));
      const head = Buffer.alloc(9);
      head.writeBigUInt64LE(BigInt(text.length + 1));
      head[8] = METADATA;
      socket.end(Buffer.concat([head, text]));
    });
  });
  const close = () => {
    data.close();
    handshakes.close();
  };
  return { port: handshakes.port, close };
}

/** A way to a port on which everything stops at a word, connections that are made later too, and goes on at another. */
export async function stoppable(port: number): Promise<Listening & { stop(): void; go(): void }> {
  const pairs = new Set<readonly Socket[]>();
  let stopped = false;
  const begin = ([from, to]: readonly Socket[]) => {
    from.pipe(to);
    to.pipe(from);
  };
  const way = await listen((from) => {
    const to = connect(port, '127.0.0.1').on('error', () => from.destroy());
    const pair = [from, to] as const;
    pairs.add(pair);
    from.on('close', () => {
      pairs.delete(pair);
      to.destroy();
    });
    to.on('close', () => from.destroy());
    if (!stopped) begin(pair);
  });
  return {
    port: way.port,
    close: way.close,
    stop() {
      stopped = true;
      for (const [from, to] of pairs) {
        from.unpipe(to).pause();
        to.unpipe(from).pause();
      }
    },
    go() {
      stopped = false;
      for (const pair of pairs) begin(pair);
    },
  };
}
