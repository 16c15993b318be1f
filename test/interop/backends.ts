/** Metadata servers in processes of their own (Debian's etcd-server and redis-server), each with a folder that goes with it. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MooncakeError } from 'mooncake-ts';
import { freePort } from './masters.js';

const START_MS = 60_000;

const running = new Set<Backend>();
process.on('exit', () => {
  for (const backend of running) backend.kill();
});

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Why a test must be skipped: the command that is not there. */
export function missing(...commands: string[]): string | undefined {
  return commands.find((command) => {
    try {
      execFileSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
}

export class Backend {
  readonly folder = mkdtempSync(join(tmpdir(), 'mooncake-backend-'));
  readonly port: number;
  #command: string[] = [];
  #process?: ChildProcess;
  #log = '';

  private constructor(port: number) {
    this.port = port;
  }

  static async etcd(...flags: string[]): Promise<Backend> {
    const backend = new Backend(await freePort());
    const scheme = flags.includes('--cert-file') ? 'https' : 'http';
    const [clients, peers] = [`${scheme}://127.0.0.1:${backend.port}`, `http://127.0.0.1:${await freePort()}`];
    backend.#command = [
      ...['etcd', '--data-dir', join(backend.folder, 'data'), '--name', 'one', '--initial-cluster', `one=${peers}`],
      ...['--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers],
      ...['--listen-client-urls', clients, '--advertise-client-urls', clients, ...flags],
    ];
    await backend.start();
    return backend;
  }

  static async redis(...flags: string[]): Promise<Backend> {
    const backend = new Backend(await freePort());
    const port = flags.includes('--tls-port') ? [] : ['--port', `${backend.port}`];
    const own = flags.map((flag) => (flag === 'PORT' ? `${backend.port}` : flag));
    backend.#command = ['redis-server', '--bind', '127.0.0.1', '--dir', backend.folder, '--save', '', ...port, ...own];
    await backend.start();
    return backend;
  }

  /** Again on the same port and folder, after `kill`. */
  async start(): Promise<void> {
    const [command, ...rest] = this.#command;
    this.#process = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this);
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.#log = (this.#log + text).slice(-4000);
      });
    }
    const end = Date.now() + START_MS;
    while (!(await this.#answers())) {
      if (this.#process.exitCode !== null || Date.now() > end) throw new Error(`no ${command}:\n${this.#log}`);
      await wait(50);
    }
  }

  /** Whether somebody serves clients, not only listens. */
  async #answers(): Promise<boolean> {
    const listens = await new Promise<boolean>((resolve) => {
      const socket = connect({ host: '127.0.0.1', port: this.port });
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
    return listens && /ready to serve client requests|Ready to accept connections/.test(this.#log);
  }

  pause(): void {
    this.#process!.kill('SIGSTOP');
  }

  resume(): void {
    this.#process!.kill('SIGCONT');
  }

  kill(): void {
    this.#process?.kill('SIGKILL');
    this.#log = '';
  }

  async end(): Promise<void> {
    running.delete(this);
    const process = this.#process!;
    if (process.exitCode === null && process.signalCode === null) {
      const exited = new Promise((resolve) => process.once('exit', resolve));
      this.kill();
      await exited;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A certificate for 127.0.0.1 that signs itself; paths of the files. */
export function certificate(folder: string): { cert: string; key: string } {
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2'];
  const made = ['-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert];
  execFileSync('openssl', ['req', '-x509', ...subject, ...made], { stdio: 'ignore' });
  return { cert, key };
}

/** Runs `work` with variables of the environment, and sets them back. */
export async function withEnv<T>(variables: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  try {
    return await work();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

/** What the promise rejects with. */
export async function failure(promise: Promise<unknown>): Promise<MooncakeError> {
  const settled = await promise.catch((error: MooncakeError) => ({ error }));
  if (settled && typeof settled === 'object' && 'error' in settled) return settled.error as MooncakeError;
  throw new Error('resolved, and should have failed');
}
