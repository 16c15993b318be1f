/** A stock transfer engine in a process of its own (stock.py), as a peer for tests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('./stock.py', import.meta.url));
const REPLY_MS = 120_000;
let nextPort = 12_300;

type Operation = 'read' | 'write';
interface Code {
  /** 0: done. */
  code: number;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Stock {
  /** What others open. */
  name = '';
  readonly process: ChildProcess;
  readonly #waiting: { resolve(result: never): void; reject(error: Error): void }[] = [];
  #log = '';

  private constructor() {
    const python = process.env.MOONCAKE_PYTHON!;
    this.process = spawn(python, [script], { stdio: ['pipe', 'pipe', 'pipe'] });
    running.add(this.process);
    this.process.stderr!.setEncoding('utf8').on('data', (text) => {
      this.#log = (this.#log + text).slice(-4000);
    });
    createInterface({ input: this.process.stdout! }).on('line', (line) => {
      const result = JSON.parse(line);
      const { resolve, reject } = this.#waiting.shift()!;
      if (result.error) reject(new Error(`${result.error}\n${this.#log}`));
      else resolve(result as never);
    });
    this.process.on('exit', (code, signal) => {
      running.delete(this.process);
      const error = new Error(`the stock engine ended with ${signal ?? code}\n${this.#log}`);
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    });
    this.process.stdin!.on('error', () => {});
  }

  /** `metadata`: undefined for P2P, or the URL of a metadata server. */
  static async start(metadata?: string): Promise<Stock> {
    const stock = new Stock();
    // With a server an engine chooses its name; without, its port is its name.
    const label = `127.0.0.1:${nextPort++}`;
    const arguments_ = metadata ? [label, metadata] : ['127.0.0.1', 'P2PHANDSHAKE'];
    const { code, port } = await stock.#call<Code & { port: number }>('start', ...arguments_);
    if (code !== 0) throw new Error(`the stock engine does not start: ${code}\n${stock.#log}`);
    stock.name = metadata ? label : `127.0.0.1:${port}`;
    return stock;
  }

  #call<T>(command: string, ...parameters: unknown[]): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.process.kill('SIGKILL'), REPLY_MS);
      const end = () => clearTimeout(timer);
      this.#waiting.push({
        resolve: (result) => {
          end();
          resolve(result);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      });
      this.process.stdin!.write(`${JSON.stringify([command, parameters])}\n`);
    });
  }

  /** Registered memory; its address. */
  async allocate(length: number): Promise<number> {
    return (await this.#call<{ address: number }>('allocate', length)).address;
  }

  async allocateBatch(length: number, count: number): Promise<number[]> {
    return (await this.#call<{ addresses: number[] }>('allocate_batch', length, count)).addresses;
  }

  release(address: number): Promise<Code> {
    return this.#call('release', address);
  }

  fill(address: number, length: number, seed: number): Promise<void> {
    return this.#call('fill', address, length, seed);
  }

  async digest(address: number, length: number): Promise<string> {
    return (await this.#call<{ sha256: string }>('digest', address, length)).sha256;
  }

  transfer(op: Operation, peer: string, buffer: number, remote: number, length: number): Promise<Code> {
    return this.#call('transfer', op, peer, buffer, remote, length);
  }

  batch(op: Operation, peer: string, buffers: number[], remotes: number[], lengths: number[]): Promise<Code> {
    return this.#call('transfer_batch', op, peer, buffers, remotes, lengths);
  }

  batchAsync(op: Operation, peer: string, buffers: number[], remotes: number[], lengths: number[]): Promise<Code> {
    return this.#call('transfer_async', op, peer, buffers, remotes, lengths);
  }

  /** Writes, and notifies the peer with it. */
  writeAndNotify(peer: string, buffer: number, remote: number, length: number, name: string, message: string) {
    return this.#call<Code>('transfer_notify', peer, buffer, remote, length, name, message);
  }

  async firstBuffer(peer: string): Promise<number> {
    return (await this.#call<{ address: number }>('first_buffer', peer)).address;
  }

  async notifications(): Promise<{ name: string; message: string }[]> {
    return (await this.#call<{ notifies: { name: string; message: string }[] }>('notifies')).notifies;
  }

  probe(peer: string): Promise<Code> {
    return this.#call('probe', peer);
  }

  async end(): Promise<void> {
    if (!running.has(this.process)) return;
    const exited = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.stdin!.end();
    const timer = setTimeout(() => this.process.kill('SIGKILL'), 10_000);
    await exited;
    clearTimeout(timer);
  }
}
