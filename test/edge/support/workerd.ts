/** Serves a bundle in workerd, with a configuration written for it, and stops it again. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { BundleFile } from './bundle.js';

const START_TIMEOUT = 30_000;

export interface Served {
  /** `http://127.0.0.1:PORT`. */
  url: string;
  pid: number;
  /** What workerd wrote so far to stderr and stdout. */
  log(): string;
  close(): Promise<void>;
}

export interface ServeOptions {
  /** Text bindings of the worker (`env.NAME`). */
  bindings?: Record<string, string>;
  /** V8 options, as the memory limits. */
  v8Flags?: string[];
}

const quote = (text: string) => JSON.stringify(text);

function configuration(files: BundleFile[], { bindings = {}, v8Flags = [] }: ServeOptions): string {
  const kind = (name: string) => (name.endsWith('.wasm') ? 'wasm' : 'esModule');
  // The first module is the one whose handlers are called.
  const scripts = [...files].sort((a, b) => Number(a.name.endsWith('.wasm')) - Number(b.name.endsWith('.wasm')));
  const modules = scripts.map(({ name }) => `(name = ${quote(name)}, ${kind(name)} = embed ${quote(name)})`);
  const texts = Object.entries(bindings).map(([name, value]) => `(name = ${quote(name)}, text = ${quote(value)})`);
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      compatibilityDate = "2026-01-01",
      modules = [${modules.join(', ')}],
      bindings = [${texts.join(', ')}],
    )),
    (name = "internet", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", http = (), service = "main")],
  v8Flags = [${v8Flags.map(quote).join(', ')}],
);
`;
}

/** Serves a bundle with a configuration written for it. */
export async function serve(binary: string, files: BundleFile[], options: ServeOptions = {}): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-workerd-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    for (const { name, contents } of files) writeFileSync(join(folder, name), contents);
    writeFileSync(join(folder, 'config.capnp'), configuration(files, options));
    const served = await start(binary, join(folder, 'config.capnp'));
    return { ...served, close: () => served.close().finally(remove) };
  } catch (error) {
    remove();
    throw error;
  }
}

/** Starts workerd with a configuration file, its socket `http` on a free port of the loopback interface. */
export async function start(binary: string, config: string, env: Record<string, string> = {}): Promise<Served> {
  // workerd reports on the control descriptor which port each socket got.
  const child = spawn(binary, ['serve', config, '--socket-addr=http=127.0.0.1:0', '--control-fd=3'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text) => (log += text));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const close = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  try {
    const port = await new Promise<number>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`workerd did not listen\n${log}`)), START_TIMEOUT);
      child.once('error', reject);
      child.once('close', (code) => reject(new Error(`workerd ended with ${code}\n${log}`)));
      let seen = '';
      (child.stdio[3] as Readable).setEncoding('utf8').on('data', (text: string) => {
        seen += text;
        const found = /"event":"listen".*?"port":(\d+)/.exec(seen);
        if (!found) return;
        clearTimeout(timer);
        resolve(Number(found[1]));
      });
    });
    return { url: `http://127.0.0.1:${port}`, pid: child.pid as number, log: () => log, close };
  } catch (error) {
    await close();
    throw error;
  }
}
