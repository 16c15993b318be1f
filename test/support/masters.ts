/** Masters in processes of their own, ours and the stock one, under the same flags. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { RpcClient } from 'mooncake-ts/rpc';
import { main } from './cli.js';

export type Kind = 'stock' | 'ours';

const START_MS = 60_000;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
// A lane ends a file that takes too long: what it started goes with it.
process.once('SIGTERM', () => process.exit(143));

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

let nextPort = 20_000 + (process.pid % 1000) * 10;

/** A port that nobody has now, and that no outgoing connection gets (those begin at 32,768). */
export function freePort(): Promise<number> {
  const port = nextPort++;
  return new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(freePort()));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(port)));
  });
}

function command(kind: Kind): [string, string[]] {
  if (kind === 'ours') return [process.execPath, [main, 'master']];
  return [join(dirname(process.env.MOONCAKE_PYTHON!), 'mooncake_master'), []];
}

export class Master {
  readonly kind: Kind;
  readonly port: number;
  readonly adminPort: number;
  readonly #flags: readonly string[];
  #process?: ChildProcess;
  /** The end of what it printed. */
  log = '';

  private constructor(kind: Kind, port: number, adminPort: number, flags: readonly string[]) {
    this.kind = kind;
    this.port = port;
    this.adminPort = adminPort;
    this.#flags = flags;
  }

  static async start(kind: Kind, flags: readonly string[] = []): Promise<Master> {
    const master = new Master(kind, await freePort(), await freePort(), flags);
    await master.restart();
    return master;
  }

  get pid(): number {
    return this.#process!.pid!;
  }

  get isRunning(): boolean {
    return this.#process !== undefined && running.has(this.#process);
  }

  /** Starts it on the ports that it had; resolves when it answers. */
  async restart(): Promise<void> {
    const [file, first] = command(this.kind);
    const ports = ['--port', `${this.port}`, '--metrics_port', `${this.adminPort}`, '--rpc_address', '127.0.0.1'];
    const child = spawn(file, [...first, ...ports, ...this.#flags], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    running.add(child);
    child.once('exit', () => running.delete(child));
    child.once('error', () => running.delete(child));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.log = (this.log + text).slice(-8000);
      });
    }
    const deadline = Date.now() + START_MS;
    for (;;) {
      if (!running.has(child)) throw new Error(`the ${this.kind} master ended at once\n${this.log}`);
      try {
        (await RpcClient.connect('127.0.0.1', this.port, { timeoutMs: 1000 })).close();
        return;
      } catch (error) {
        if (Date.now() > deadline)
          throw new Error(`no ${this.kind} master after ${START_MS} ms: ${error}\n${this.log}`);
        await wait(50);
      }
    }
  }

  connect(timeoutMs = 30_000): Promise<RpcClient> {
    return RpcClient.connect('127.0.0.1', this.port, { timeoutMs });
  }

  /** Resolves when it has ended. */
  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    const child = this.#process;
    if (!child || !running.has(child)) return null;
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
    child.kill(signal);
    return exited;
  }
}
