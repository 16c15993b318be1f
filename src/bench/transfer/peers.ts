/**
 * Other systems that move the same bytes, found by the environment: NIXL_PYTHON (a Python with nixl-cu12 1.5.1, installed
 * without its dependencies, and numpy), MOONCAKE_PYTHON (one with mooncake-transfer-engine-non-cuda 0.3.13.post1), and
 * iperf3 on PATH or named by IPERF3. Two processes each, on this machine.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { errors } from '../../core/errors.js';
import { Driver } from './driver.js';

export interface PeerSpec {
  readonly name: string;
  readonly title: string;
  /** Names the Python that has it. */
  readonly variable: string;
  readonly script: string;
  readonly env?: Record<string, string>;
  /** Descriptors of a batch that it takes. */
  readonly maxCount?: number;
  readonly install: string;
}

const NIXL = {
  variable: 'NIXL_PYTHON',
  script: 'nixl_peer.py',
  install: 'a Python 3.11 with: pip install --no-deps nixl-cu12==1.5.1 numpy',
};

export const PEERS: readonly PeerSpec[] = [
  { ...NIXL, name: 'nixl-cma', title: 'NIXL, UCX over posix, sysv, cma', env: { UCX_TLS: 'posix,sysv,cma' } },
  { ...NIXL, name: 'nixl-tcp', title: 'NIXL, UCX over tcp', env: { UCX_TLS: 'tcp' } },
  {
    name: 'stock',
    title: "Mooncake's Transfer Engine, tcp",
    variable: 'MOONCAKE_PYTHON',
    script: 'stock_engine.py',
    // With its defaults it refuses more, and what comes after a refusal too.
    maxCount: 2048,
    install: 'a Python with: pip install mooncake-transfer-engine-non-cuda==0.3.13.post1 (it needs libibverbs1)',
  },
];

const folder = join(createRequire(import.meta.url).resolve('mooncake-ts/package.json'), '../bench/peers');

/** Starts one with `total` bytes on each side. Throws ERR_NOT_SUPPORTED where it is not named, ERR_PEER where it does not run. */
export function startPeer(spec: PeerSpec, total: number, signal?: AbortSignal): Promise<Driver> {
  const python = process.env[spec.variable];
  if (!python) throw errors.notSupported(spec.title, `${spec.variable} names no Python; set it to ${spec.install}`);
  return Driver.start({
    name: spec.title,
    command: python,
    args: [join(folder, spec.script), `${total}`],
    env: { ...process.env, ...spec.env, PYTHONDONTWRITEBYTECODE: '1' },
    stopIdle: true,
    signal,
  });
}

const IPERF_START_MS = 5_000;

/** GB/s of iperf3 over loopback. Throws ERR_NOT_SUPPORTED where there is none, ERR_PEER, ERR_TIMEOUT. */
export async function iperf3(streams: number, seconds = 1): Promise<number> {
  const command = process.env.IPERF3 || 'iperf3';
  const place = ['-p', `${await freePort()}`];
  const server = spawn(command, ['-s', '-1', '--forceflush', '-B', '127.0.0.1', ...place], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await listening(server);
    const args = ['-c', '127.0.0.1', ...place, '-t', `${seconds}`, '-P', `${streams}`, '-J'];
    const client = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], timeout: seconds * 1000 + 5_000 });
    let text = '';
    client.stdout.setEncoding('utf8').on('data', (part) => {
      text += part;
    });
    const [code] = await once(client, 'close');
    const rate = code === 0 ? JSON.parse(text).end?.sum_received?.bits_per_second : undefined;
    if (typeof rate !== 'number') throw errors.peer('iperf3', `its client ended with ${code}`);
    return rate / 8e9;
  } finally {
    server.kill('SIGKILL');
  }
}

function listening(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(errors.timeout('the start of iperf3', IPERF_START_MS)), IPERF_START_MS);
    const settle = (end: () => void) => {
      clearTimeout(timer);
      end();
    };
    const missing = errors.notSupported('iperf3', 'it is not on PATH; install it, or name it by IPERF3');
    server.once('error', () => settle(() => reject(missing)));
    server.once('exit', (code) => settle(() => reject(errors.peer('iperf3', `its server ended with ${code}`))));
    createInterface({ input: server.stdout! }).on('line', (line) => {
      if (line.includes('listening')) settle(resolve);
    });
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
