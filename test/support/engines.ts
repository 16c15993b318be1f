/** Transfer engines over each data plane that this machine has, for tests that run over all of them. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { TransferEngine, type TransferEngineOptions } from 'mooncake-ts';

export interface Plane {
  name: string;
  native: boolean;
}

async function accelerated(): Promise<string | undefined> {
  const engine = await TransferEngine.create();
  await engine.close();
  return engine.accelerated ? undefined : engine.why;
}

const why = await accelerated();
if (why) console.log(`NOTE the accelerator is not tested here: ${why}`);

export const PLANES: Plane[] = [
  { name: 'TypeScript', native: false },
  ...(why === undefined ? [{ name: 'native', native: true }] : []),
];

/** Every way in which two planes meet. */
export const PAIRS = PLANES.flatMap((a) => PLANES.map((b) => ({ a, b, name: `${a.name} and ${b.name}` })));

export function create(plane: Plane, options?: TransferEngineOptions): Promise<TransferEngine> {
  return TransferEngine.create({ ...options, native: plane.native });
}

/** Runs `work` with two engines, and closes them. */
export async function withEngines(
  pair: { a: Plane; b: Plane },
  work: (a: TransferEngine, b: TransferEngine) => Promise<void>,
  options?: TransferEngineOptions,
): Promise<void> {
  const [a, b] = [await create(pair.a, options), await create(pair.b, options)];
  try {
    await work(a, b);
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}

export const placeOf = (name: string) => {
  const at = name.lastIndexOf(':');
  return { host: name.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(name.slice(at + 1)) };
};

/** Sends bytes to a port; everything that comes back until the other side closes, or `enough` bytes are there. */
export function talk(name: string, bytes: Uint8Array, enough = Number.POSITIVE_INFINITY): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(placeOf(name));
    const chunks: Buffer[] = [];
    const timer = setTimeout(() => socket.destroy(new Error('nothing more came')), 20_000);
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(Buffer.concat(chunks));
    };
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      if (Buffer.concat(chunks).length >= enough) end();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      // A side that closes with our bytes unread resets the connection.
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') end();
      else reject(error);
    });
    socket.on('close', end);
  });
}

/** A frame of Mooncake's handshake, by its documented layout. */
export function frame(type: number, text: string): Buffer {
  const body = Buffer.from(text);
  const bytes = Buffer.alloc(9 + body.length);
  bytes.writeBigUInt64LE(BigInt(body.length + 1));
  bytes[8] = type;
  body.copy(bytes, 9);
  return bytes;
}

/** A request of Mooncake's data stream, by its documented layout. */
export function request(opcode: number, address: bigint, size: bigint): Buffer {
  const bytes = Buffer.alloc(24, 0xa5);
  bytes.writeBigUInt64LE(size, 0);
  bytes.writeBigUInt64LE(address, 8);
  bytes[16] = opcode;
  return bytes;
}

/** A server of the test's own, on a free port of loopback. */
export async function serve(onSocket: (socket: Socket) => void): Promise<{ name: string; server: Server }> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  return { name: `127.0.0.1:${(server.address() as { port: number }).port}`, server };
}
