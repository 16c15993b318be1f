/**
 * A vLLM process: it leads a process group of its own, so that killing it takes its workers too, and ends when its standard
 * input does (lifeline.py), so that nothing outlives a test that was killed. The end of what it printed is kept for messages.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Of the Python scripts: beside this, unless it is bundled into something else. */
const folder = resolve(process.env.MOONCAKE_VLLM_SUPPORT ?? fileURLToPath(new URL('.', import.meta.url)));
const LOG_CHARS = 16_000;
const STOP_MS = 60_000;

const running = new Set<VllmProcess>();
process.on('exit', () => {
  for (const one of running) one.signal('SIGKILL');
});

/** Environment of every engine: CPU, one thread, no network beyond this machine, hashes that other processes repeat. */
export const ENVIRONMENT = {
  PYTHONPATH: folder,
  PYTHONHASHSEED: '0',
  PYTHONUNBUFFERED: '1',
  HF_HUB_OFFLINE: '1',
  OMP_NUM_THREADS: '1',
  VLLM_CPU_KVCACHE_SPACE: '1',
  VLLM_CPU_OMP_THREADS_BIND: 'nobind',
  VLLM_HOST_IP: '127.0.0.1',
  VLLM_NO_USAGE_STATS: '1',
};

export interface VllmOptions {
  /** What messages call it. */
  readonly name: string;
  /** Added to the environment. PYTHONPATH is put before the tests' own. */
  readonly env?: Record<string, string>;
}

export class VllmProcess {
  readonly name: string;
  readonly child: ChildProcess;
  /** The end of what it printed. */
  log = '';
  /** How it ended: an exit code or a signal; undefined while it runs. */
  ended?: number | NodeJS.Signals;
  readonly exited: Promise<void>;

  constructor(script: string, args: readonly string[], { name, env = {} }: VllmOptions) {
    this.name = name;
    const python = process.env.MOONCAKE_VLLM_ENGINE!;
    const path = [env.PYTHONPATH, ENVIRONMENT.PYTHONPATH].filter(Boolean).join(':');
    this.child = spawn(python, [join(folder, script), ...args], {
      env: { ...process.env, ...ENVIRONMENT, ...env, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: '' },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(this);
    this.child.stdin!.on('error', () => {});
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.log = (this.log + text).slice(-LOG_CHARS);
      });
    }
    this.exited = once(this.child, 'exit').then(([code, signal]) => {
      this.ended = signal ?? code;
      // Its workers go with it.
      this.signal('SIGKILL');
      running.delete(this);
    });
  }

  /** To the whole group; nothing where it is gone. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.child.pid!, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  /** As a machine that loses power: no goodbye to anyone. */
  async kill(): Promise<void> {
    if (this.ended === undefined) this.signal('SIGKILL');
    await this.exited;
  }

  /** Waits for its end, and kills it where that does not come. */
  async leave(): Promise<void> {
    const timer = setTimeout(() => this.signal('SIGKILL'), STOP_MS);
    await this.exited;
    clearTimeout(timer);
  }

  /** An error with what it printed last. */
  failure(what: string, cause?: unknown): Error {
    return new Error(`vLLM "${this.name}" ${what}\n--- the end of what it printed:\n${this.log}`, { cause });
  }
}
