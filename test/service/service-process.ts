/** Services in processes of their own, which can be killed and started again at the same socket. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ChildOptions } from './service-child.js';

export interface ServiceLine {
  what: string;
  engine?: string;
  text?: string;
  instance?: string;
}

export class ServiceProcess {
  readonly socket: string;
  /** Everything that it has said. */
  readonly lines: ServiceLine[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), 'mooncake-service-'));
  readonly #options: Omit<ChildOptions, 'socket'>;
  #child!: ChildProcess;

  private constructor(options: Omit<ChildOptions, 'socket'>) {
    this.#options = options;
    this.socket = join(this.#folder, 'service.sock');
  }

  static async start(options: Omit<ChildOptions, 'socket'> = {}): Promise<ServiceProcess> {
    const service = new ServiceProcess(options);
    await service.restart();
    return service;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async restart(): Promise<void> {
    const program = fileURLToPath(new URL('./service-child.js', import.meta.url));
    const options: ChildOptions = { socket: this.socket, ...this.#options };
    this.#child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const reader = createInterface({ input: this.#child.stdout! });
    const listening = new Promise<void>((resolve, reject) => {
      reader.on('line', (text) => {
        const line = JSON.parse(text) as ServiceLine;
        this.lines.push(line);
        if (line.what === 'listening') resolve();
      });
      this.#child.once('exit', (code, signal) => reject(new Error(`the service ended: ${signal ?? code}`)));
    });
    await listening;
  }

  get killed(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    if (this.killed) return this.#child.exitCode;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    const [code] = await exited;
    return code;
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
