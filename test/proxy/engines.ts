/** Dummy engines in processes of their own (engine-process.ts), and a client that reads their streams. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

export interface EngineLog {
  running: number;
  kept: number;
  log: Record<string, unknown>[];
}

export class Engine {
  readonly name: string;
  readonly role: 'prefill' | 'decode';
  readonly port: number;
  readonly child: ChildProcess;

  private constructor(name: string, role: 'prefill' | 'decode', port: number, child: ChildProcess) {
    this.name = name;
    this.role = role;
    this.port = port;
    this.child = child;
  }

  static async start(
    name: string,
    role: 'prefill' | 'decode',
    { blockSize = 16, algorithm = 'sha256_cbor', port = 0, ranks = 1 } = {},
  ): Promise<Engine> {
    const args = [name, role, String(blockSize), algorithm, String(port), String(ranks)];
    const child = fork(new URL('./engine-process.js', import.meta.url), args);
    const [message] = await once(child, 'message');
    return new Engine(name, role, message.port, child);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** As `--prefill` takes it: its bootstrap server is on the same port. */
  get options(): { url: string; bootstrapPort: number } {
    return { url: this.url, bootstrapPort: this.port };
  }

  async log(): Promise<EngineLog> {
    return (await (await fetch(`${this.url}/log`)).json()) as EngineLog;
  }

  /** Waits until nothing runs there. */
  async quiet(): Promise<EngineLog> {
    for (;;) {
      const log = await this.log();
      if (log.running === 0) return log;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill(signal);
    await exited;
  }
}

export async function startEngines(...specs: string[]): Promise<Record<string, Engine>> {
  const engines = await Promise.all(
    specs.map((name) => Engine.start(name, name.startsWith('p') ? 'prefill' : 'decode')),
  );
  return Object.fromEntries(engines.map((one) => [one.name, one]));
}

export interface Completed {
  status: number;
  headers: Headers;
  /** Data of the events, or the one JSON body. */
  events: Record<string, unknown>[];
  done: boolean;
  text: string;
}

/** Sends a completion and reads all of its answer. */
export async function complete(
  url: string,
  body: object | string,
  { path = '/v1/completions', signal, headers = {} }: { path?: string; signal?: AbortSignal; headers?: object } = {},
): Promise<Completed> {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
  const raw = await response.text();
  const isEvents = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  const lines = isEvents
    ? raw
        .split('\n\n')
        .filter((line) => line !== '')
        .map((line) => {
          if (!line.startsWith('data: ')) throw new Error(`no event: ${line}`);
          return line.slice(6);
        })
    : [raw];
  const events = lines.filter((line) => line !== '[DONE]').map((line) => JSON.parse(line));
  const text = events.map((event) => event.choices?.[0]?.text ?? '').join('');
  return { status: response.status, headers: response.headers, events, done: lines.includes('[DONE]'), text };
}

/** What an engine generates for a prompt. */
export const expected = (prompt: unknown, tokens: number) =>
  Array.from({ length: tokens }, (_, i) => `${JSON.stringify(prompt)}:${i};`).join('');
