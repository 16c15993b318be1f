/**
 * The commands of docs/vllm.md as a shell runs them, in an empty folder. What a small machine needs beside them, `mooncake-ts`,
 * `pip` and `vllm` on the PATH add: the package that the lane has installed, a folder for Python packages, arguments for a CPU.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { main } from '../../support/cli.js';
import { freePort } from '../../support/masters.js';
import { ENVIRONMENT } from './process.js';
import { flags, SERVED } from './server.js';

const LOG_CHARS = 16_000;
const STOP_MS = 60_000;
/** As the guide writes the model. */
const NAMED = 'Qwen/Qwen3-8B';
/** Runs its argument. All that it starts ends when standard input does, which is when the test ends, and no sooner. */
const LIFELINE = 'exec 3<&0; ( cat <&3 > /dev/null; kill -KILL 0 ) & sh -ec "$0"; wait';

const quoted = (words: readonly string[]) => words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');

/** Commands that run, in a process group of their own. */
export interface Running {
  /** Ends everything that the commands started. */
  end(): Promise<void>;
  /** The end of what they printed. */
  readonly log: string;
}

export class Guide {
  readonly #folder = mkdtempSync(join(tmpdir(), 'mooncake-guide-'));
  readonly #text: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #ports = new Map<string, number>();
  readonly #running: Running[] = [];

  constructor() {
    const adapter = process.env.MOONCAKE_VLLM_ADAPTER!;
    this.#text = readFileSync(resolve(adapter, '../../docs/vllm.md'), 'utf8');
    const [bin, site, runtime] = ['bin', 'site', 'run'].map((name) => join(this.#folder, name));
    for (const path of [bin, site]) mkdirSync(path);
    mkdirSync(runtime, { mode: 0o700 });
    cpSync(adapter, join(this.#folder, 'integrations', 'vllm'), { recursive: true });
    const python = process.env.MOONCAKE_VLLM_ENGINE!;
    const commands = {
      'mooncake-ts': `${quoted([process.execPath, main])} "$@"`,
      pip: `${quoted([python, '-m', 'pip'])} "$@" --quiet --no-deps --no-build-isolation --target ${quoted([site])}`,
      // The port of an engine's arguments names the file that says its process.
      vllm:
        `sh -c 'for last in "$@"; do :; done; echo $$ > "$last.pid"; exec "$0" "$@" ${flags(SERVED).join(' ')} ` +
        `--host 127.0.0.1 --distributed-executor-backend uni' ${quoted([python, '-m', 'vllm.entrypoints.cli.main'])} "$@"`,
    };
    for (const [name, command] of Object.entries(commands)) {
      writeFileSync(join(bin, name), `#!/bin/sh\nexec ${command}\n`, { mode: 0o755 });
    }
    const { MOONCAKE_TS_SERVICE: _, MOONCAKE_CONFIG_PATH: __, MOONCAKE_MASTER: ___, ...inherited } = process.env;
    this.#environment = {
      ...inherited,
      ...ENVIRONMENT,
      PYTHONPATH: site,
      PATH: `${bin}:${process.env.PATH}`,
      XDG_RUNTIME_DIR: runtime,
    };
  }

  /** The blocks of commands below a heading, with this machine's model. */
  async blocks(heading: string): Promise<string[]> {
    const [, section = ''] = this.#text.split(new RegExp(`^#+ ${heading}$`, 'm'));
    const [own] = section.split(/^## /m);
    const blocks = [...own.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block);
    for (const [port] of blocks.join('').matchAll(/\b[89]\d{3}\b/g)) {
      if (!this.#ports.has(port)) this.#ports.set(port, await freePort());
    }
    return blocks.map((block) =>
      block
        .replaceAll(/\b[89]\d{3}\b/g, (port) => `${this.#ports.get(port)}`)
        .replaceAll(NAMED, process.env.MOONCAKE_VLLM_MODEL!),
    );
  }

  /** Where a server is reached that the guide has on `port`. */
  url(port: number): string {
    return `http://127.0.0.1:${this.#ports.get(`${port}`)}`;
  }

  run(commands: string): Running {
    const child = spawn('sh', ['-c', LIFELINE, commands], {
      cwd: this.#folder,
      env: this.#environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    const running = new Commands(child);
    this.#running.push(running);
    return running;
  }

  /** Ends an engine as a user does, whoever started it. */
  async stopEngine(port: number): Promise<void> {
    const pid = Number(readFileSync(join(this.#folder, `${this.#ports.get(`${port}`)}.pid`), 'utf8'));
    process.kill(pid, 'SIGTERM');
    for (const deadline = Date.now() + STOP_MS; isAlive(pid); ) {
      if (Date.now() > deadline) throw new Error(`engine ${pid} does not end`);
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  async end(): Promise<void> {
    await Promise.all(this.#running.map((one) => one.end()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

class Commands implements Running {
  log = '';
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#closed = once(child, 'close');
    child.stdin!.on('error', () => {});
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.log = (this.log + text).slice(-LOG_CHARS);
      });
    }
  }

  async end(): Promise<void> {
    this.#child.stdin!.end();
    await this.#closed;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
