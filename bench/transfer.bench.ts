/**
 * Reads and writes of registered memory between two processes on this machine over the connection of TcpTransfer (in TypeScript
 * alone: transfer-engine.bench.ts has the accelerator), blocks of 1 MiB and 64 KiB
 * in batches, verified and not, and the round trip of a small call; within one process the same over LocalTransfer. Peers
 * of the same run: iperf3 (found on PATH, or IPERF3=/path) over loopback with one stream, and a bare exchange of one byte
 * over node:net.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { Descriptors, LocalTransfer, type Peer, TcpTransfer, type Transfer } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const BYTES = 256 * 2 ** 20;
const RUNS = 7;
const CALLS = 2000;
const SERVER = '--server';

/** `length` bytes at the same place on both sides, in blocks whose order is mixed, so that none can be merged. */
function blocks(source: number, destination: number, size: number): Descriptors {
  const count = BYTES / size;
  const bytes = new Uint8Array(32 * (count + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(count), true);
  for (let i = 0; i < count; i++) {
    const at = 32 * (i + 1);
    view.setUint32(at, source, true);
    view.setUint32(at + 4, destination, true);
    view.setBigUint64(at + 8, BigInt(((i * 7) % count) * size), true);
    view.setBigUint64(at + 16, BigInt(((i * 7) % count) * size), true);
    view.setBigUint64(at + 24, BigInt(size), true);
  }
  return new Descriptors(bytes);
}

function serve(transfer: Transfer): void {
  const memory = new Uint8Array(BYTES).map((_, i) => Math.imul(i, 2654435761) >>> 13);
  transfer.register(memory, { name: 'kv' });
  transfer.serve('echo', (message) => message);
}

async function roundTrip(exchange: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let i = -100; i < CALLS; i++) {
    const start = performance.now();
    await exchange();
    if (i >= 0) times.push(performance.now() - start);
  }
  return median(times) * 1000;
}

/** One byte there and back over a bare socket, to a server in the other process; µs. */
async function bareRoundTrip(port: number): Promise<number> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  const time = await roundTrip(() => {
    socket.write('x');
    return once(socket, 'data');
  });
  socket.destroy();
  return time;
}

/** Bytes per second of iperf3's one stream over loopback, in GB/s. */
async function iperf(): Promise<number | undefined> {
  const command = process.env.IPERF3 ?? 'iperf3';
  if (spawnSync(command, ['--version']).status !== 0) return undefined;
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const server = spawn(command, ['-s', '-1', '-B', '127.0.0.1', '-p', `${port}`], { stdio: 'ignore' });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { stdout } = spawnSync(command, ['-c', '127.0.0.1', '-p', `${port}`, '-t', '3', '-J'], { encoding: 'utf8' });
  server.kill();
  return JSON.parse(stdout).end.sum_received.bits_per_second / 8e9;
}

async function measure(label: string, transfer: Transfer, peer: Peer, baseline: number | undefined): Promise<void> {
  const ours = transfer.register(new Uint8Array(BYTES).fill(1));
  const { id } = await peer.segment('kv');
  const rows = ([2 ** 20, 65536] as const).flatMap((size) =>
    (['full', 'off'] as const).flatMap((verify) => {
      const [forth, back] = [blocks(id, ours, size), blocks(ours, id, size)];
      const name = `${size === 65536 ? '64 KiB' : '1 MiB'} blocks, verify ${verify}`;
      return [
        { name: `${label} read, ${name}`, move: () => peer.read(forth, { verify }), rates: [] as number[] },
        { name: `${label} write, ${name}`, move: () => peer.write(back, { verify }), rates: [] as number[] },
      ];
    }),
  );
  // Interleaved: what disturbs the machine disturbs all rows.
  for (let run = -1; run < RUNS; run++) {
    for (const { move, rates } of rows) {
      const { bytes, milliseconds } = await move();
      if (run >= 0) rates.push(bytes / milliseconds / 1e6);
    }
  }
  for (const { name, rates } of rows) {
    report({ name, value: median(rates), unit: 'GB/s', baseline, peer: 'iperf3' }, 'higher');
  }
}

async function main(): Promise<void> {
  const stream = await iperf();
  if (stream === undefined) missing('iperf3, one stream over loopback', 'iperf3 is not installed (or set IPERF3)');
  else report({ name: 'iperf3, one stream over loopback', value: stream, unit: 'GB/s' }, 'higher');

  const child: ChildProcess = spawn(process.execPath, [process.argv[1], SERVER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout!.setEncoding('utf8'), 'data')) as [string];
  const { address, port } = JSON.parse(line) as { address: string; port: number };
  const transfer = await TcpTransfer.listen({ native: false });
  const peer = await transfer.connect(address);
  await measure('tcp', transfer, peer, stream);
  const bare = await bareRoundTrip(port);
  const value = await roundTrip(() => peer.call('echo', 1));
  report({ name: 'tcp call, median', value, unit: 'µs', baseline: bare, peer: 'node:net, one byte' }, 'lower');
  child.kill();
  await transfer.close();

  const [a, b] = [new LocalTransfer(), new LocalTransfer()];
  serve(b);
  const local = await a.connect(b.address);
  await measure('local', a, local, undefined);
  report({ name: 'local call, median', value: await roundTrip(() => local.call('echo', 1)), unit: 'µs' }, 'lower');
  await Promise.all([a.close(), b.close()]);
}

if (process.argv.includes(SERVER)) {
  const transfer = await TcpTransfer.listen({ native: false });
  serve(transfer);
  const bare = createServer({ noDelay: true }, (socket) => socket.pipe(socket).on('error', () => {}));
  bare.listen(0, '127.0.0.1', () => {
    console.log(JSON.stringify({ address: transfer.address, port: (bare.address() as AddressInfo).port }));
  });
} else await main();
