/**
 * Two hosts for tests: network namespaces joined by a pair of veth devices, each process with a runtime folder that nobody else
 * sees, so that there is neither loopback nor shared memory between them. Addresses are out of the networks for tests of
 * devices (198.18.0.0/15, RFC 2544) and out of the local ones (fd00::/8, RFC 4193).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const LINE_MS = 120_000;

function ip(...args: string[]): void {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

/** A process on a host: what it prints, line by line. */
export class HostProcess {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #log = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(-4000);
    });
    child.on('error', () => {});
  }

  /** Its next line. Throws where it ends, or says nothing. */
  async line(): Promise<string> {
    const late = setTimeout(() => this.#child.kill('SIGKILL'), LINE_MS);
    const { value, done } = await this.#lines.next();
    clearTimeout(late);
    if (done) throw new Error(`a process ended with ${this.#child.signalCode ?? this.#child.exitCode}\n${this.#log}`);
    return value;
  }

  send(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  end(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return Promise.resolve();
    const exited = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
    this.#child.kill('SIGKILL');
    return exited;
  }
}

export class Host {
  readonly address: string;
  readonly #namespace: string;
  readonly #folder: string;
  readonly #processes: HostProcess[] = [];

  constructor(namespace: string, folder: string, address: string) {
    this.#namespace = namespace;
    this.#folder = folder;
    this.address = address;
  }

  start(file: string, args: readonly string[]): HostProcess {
    // Mounts made in a namespace of `ip netns exec` are seen there alone.
    const alone = ['sh', '-c', 'mount -t tmpfs tmpfs "$0" && exec "$@"', this.#folder];
    const command = ['netns', 'exec', this.#namespace, ...alone, file, ...args];
    const child = new HostProcess(spawn('ip', command, { env: { ...process.env, XDG_RUNTIME_DIR: this.#folder } }));
    this.#processes.push(child);
    return child;
  }

  async close(): Promise<void> {
    await Promise.all(this.#processes.map((child) => child.end()));
  }
}

export type Family = 'IPv4' | 'IPv6';

const ADDRESSES = {
  IPv4: { hosts: ['198.18.0.1', '198.18.0.2'], bits: 30 },
  IPv6: { hosts: ['fd00:6d6f:6f6e::1', 'fd00:6d6f:6f6e::2'], bits: 64 },
} as const;

/** Runs `use` with two hosts; nothing of them is left afterwards. Throws where name spaces are not allowed. */
export async function withHosts(family: Family, use: (left: Host, right: Host) => Promise<void>): Promise<void> {
  const id = randomBytes(4).toString('hex');
  const names = [`mooncake-${id}-l`, `mooncake-${id}-r`];
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-hosts-'));
  const { hosts, bits } = ADDRESSES[family];
  const [left, right] = names.map((name, i) => new Host(name, folder, hosts[i]));
  try {
    for (const name of names) ip('netns', 'add', name);
    ip('-n', names[0], 'link', 'add', 'veth', 'type', 'veth', 'peer', 'name', 'veth', 'netns', names[1]);
    for (const [i, name] of names.entries()) {
      // No duplicate detection: an IPv6 address could not be bound for a second.
      const rest = family === 'IPv6' ? ['nodad'] : [];
      ip('-n', name, 'address', 'add', `${hosts[i]}/${bits}`, 'dev', 'veth', ...rest);
      ip('-n', name, 'link', 'set', 'veth', 'up');
      ip('-n', name, 'link', 'set', 'lo', 'up');
    }
    await use(left, right);
  } finally {
    await Promise.all([left.close(), right.close()]);
    for (const name of names) spawnSync('ip', ['netns', 'delete', name]);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Why there can be no such hosts here; undefined where there can. */
export async function whyNoHosts(family: Family): Promise<string | undefined> {
  try {
    await withHosts(family, async (left) => {
      if ((await left.start('echo', ['here']).line()) !== 'here') throw new Error('no process runs there');
    });
    return undefined;
  } catch (error) {
    return (error as Error).message.trim();
  }
}
