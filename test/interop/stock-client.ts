/** A stock store client in a process of its own (connect_client.py). */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePort } from './masters.js';

const script = fileURLToPath(new URL('./connect_client.py', import.meta.url));
const REPLY_MS = 120_000;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** What both sides make of a seed. */
export function value(seed: number, size: number): Uint8Array {
  const block = Uint8Array.from({ length: 251 }, (_, i) => (seed * 31 + i * 7) & 255);
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 251) bytes.set(block.subarray(0, Math.min(251, size - at)), at);
  return bytes;
}

export class StockClient {
  /** Of its segment. */
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #waiting: { resolve(result: unknown): void; reject(error: Error): void }[] = [];
  #log = '';

  private constructor(child: ChildProcess, name: string) {
    this.name = name;
    this.#process = child;
    running.add(child);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(-4000);
    });
    if (child.stdout) {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const { result, error } = JSON.parse(line);
        const waiting = this.#waiting.shift();
        if (error === undefined) waiting?.resolve(result);
        else waiting?.reject(new Error(`${error}\n${this.#log}`));
      });
    }
    child.on('exit', (code, signal) => {
      running.delete(child);
      const error = new Error(`the stock client ended with ${signal ?? code}\n${this.#log}`);
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    });
    child.stdin?.on('error', () => {});
  }

  static async start(
    master: string,
    { metadata = 'P2PHANDSHAKE', segment = 192 * 2 ** 20, checksums = false } = {},
  ): Promise<StockClient> {
    const name = `127.0.0.1:${await freePort()}`;
    const env = { ...process.env, MOONCAKE_STORE_CHECKSUM: checksums ? '1' : '0' };
    const command = [script, master, metadata, name, `${segment}`];
    const child = spawn(`${process.env.MOONCAKE_PYTHON}`, command, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    const client = new StockClient(child, name);
    await client.#answer();
    return client;
  }

  call(command: string, ...parameters: unknown[]): Promise<unknown> {
    const answer = this.#answer();
    this.#process.stdin?.write(`${JSON.stringify([command, parameters])}\n`);
    return answer;
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#process.kill('SIGKILL'), REPLY_MS);
      const end = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      };
      this.#waiting.push({ resolve: end(resolve), reject: end(reject) });
    });
  }

  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (!running.has(this.#process)) return;
    const exited = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill(signal);
    await exited;
  }
}
