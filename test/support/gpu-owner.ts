/**
 * A process that has memory of a simulated GPU, as an inference engine has: `GpuOwner.start(bytes)`. What others write to it is
 * seen by its own copies alone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { TransferEngine } from 'mooncake-ts';
import { one } from './descriptors.js';

interface Said {
  handle?: string;
  offset?: number;
  bytes?: string;
}

export class GpuOwner {
  readonly length: number;
  readonly device: string;
  handle = new Uint8Array();
  offset = 0;
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterableIterator<string>;

  private constructor(child: ChildProcess, device: string, length: number) {
    this.#child = child;
    this.device = device;
    this.length = length;
    this.#answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  static async start(length: number, device = 'cuda:0'): Promise<GpuOwner> {
    const program = fileURLToPath(import.meta.url);
    const child = spawn(process.execPath, [program, device, `${length}`], { stdio: ['pipe', 'pipe', 'inherit'] });
    const owner = new GpuOwner(child, device, length);
    const { handle = '', offset = 0 } = await owner.#next();
    owner.handle = new Uint8Array(Buffer.from(handle, 'base64'));
    owner.offset = offset;
    return owner;
  }

  /** As others register it. */
  get memory() {
    const { device, handle, offset, length } = this;
    return { device, handle, offset, length };
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#child.stdin!.write(`${JSON.stringify({ at: offset, bytes: Buffer.from(bytes).toString('base64') })}\n`);
    await this.#next();
  }

  async read(offset = 0, length = this.length): Promise<Uint8Array> {
    this.#child.stdin!.write(`${JSON.stringify({ at: offset, length })}\n`);
    return new Uint8Array(Buffer.from((await this.#next()).bytes ?? '', 'base64'));
  }

  async close(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }

  async #next(): Promise<Said> {
    const { value, done } = await this.#answers.next();
    if (done) throw new Error('the owner of the GPU memory has ended');
    return JSON.parse(value);
  }
}

async function serve(device: string, length: number): Promise<void> {
  const engine = await TransferEngine.create();
  const gpu = await engine.allocateDevice(device, length);
  const host = await engine.allocate(length);
  await engine.copy(one(host.id, 0, gpu.id, 0, length));
  const say = (said: Said) => process.stdout.write(`${JSON.stringify(said)}\n`);
  const { handle, offset } = engine.exportDevice(gpu.id);
  say({ handle: Buffer.from(handle).toString('base64'), offset });
  for await (const line of createInterface({ input: process.stdin })) {
    const { at, bytes, length: asked } = JSON.parse(line) as { at: number; bytes?: string; length?: number };
    if (bytes !== undefined) {
      const given = Buffer.from(bytes, 'base64');
      host.memory.set(given);
      await engine.copy(one(host.id, 0, gpu.id, at, given.length));
      say({});
    } else {
      await engine.copy(one(gpu.id, at, host.id, 0, asked!));
      say({ bytes: Buffer.from(host.memory.subarray(0, asked)).toString('base64') });
    }
  }
  await engine.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve(process.argv[2], Number(process.argv[3]));
