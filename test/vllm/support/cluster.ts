/**
 * A Mooncake cluster for engines: a master and one store node that lends the memory, ours or the stock ones. Engines lend
 * nothing, so that what they saved is there when they are gone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TransferEngine } from 'mooncake-ts';
import { run } from '../../support/cli.js';
import { one } from '../../support/descriptors.js';
import { freePort, type Kind, Master } from '../../support/masters.js';
import { CommandProcess } from '../../support/node-process.js';
import { Engine, type KvTransferConfig, type LlmOptions } from './engine.js';

const START_MS = 60_000;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export interface ClusterOptions {
  /** Default: ours. */
  readonly master?: Kind;
  /** Who lends the memory: a node of ours (default), the stock store service, or nobody. */
  readonly node?: Kind | 'none';
  /** Bytes that the node lends; 256 MiB by default. A block of 32 tokens takes 64 KiB with the tests' model. */
  readonly bytes?: number;
  /** Flags of the master. */
  readonly flags?: readonly string[];
  /** Added to the node's configuration file. */
  readonly settings?: Record<string, unknown>;
}

/** Options of Engine.start and Server.start. */
export interface EngineArgs {
  readonly transfer: KvTransferConfig;
  readonly env: Record<string, string>;
  /** Of servers. */
  readonly args: readonly string[];
}

/** A node of either kind, as a process that can be killed. */
interface NodeProcess {
  readonly url: string;
  end(signal: NodeJS.Signals): Promise<unknown>;
}

export class Cluster {
  readonly master: Master;
  /** Of the configuration files. */
  readonly folder: string;
  #node?: NodeProcess;

  private constructor(master: Master, folder: string) {
    this.master = master;
    this.folder = folder;
  }

  static async start({
    master = 'ours',
    node = 'ours',
    bytes = 256 * 2 ** 20,
    flags = [],
    settings,
  }: ClusterOptions = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'mooncake-vllm-'));
    const cluster = new Cluster(await Master.start(master, ['--default_kv_lease_ttl=1000', ...flags]), folder);
    try {
      if (node !== 'none') await cluster.startNode(node, bytes, settings);
      return cluster;
    } catch (error) {
      await cluster.end();
      throw error;
    }
  }

  /** A cluster for as long as `work` takes. */
  static async use(work: (cluster: Cluster) => Promise<void>, options?: ClusterOptions): Promise<void> {
    const cluster = await Cluster.start(options);
    try {
      await work(cluster);
    } finally {
      await cluster.end();
    }
  }

  get address(): string {
    return `127.0.0.1:${this.master.port}`;
  }

  /**
   * What `mooncake-ts vllm-args` gives an engine with stock connectors that lends nothing; its file is written.
   */
  async args(setup: string, ...flags: string[]): Promise<EngineArgs> {
    const file = join(this.folder, 'engine.json');
    const own = ['--connector', 'stock', '--master', this.address, '--segment-size', '0', '--file', file, '--json'];
    const { code, stdout, stderr } = await run(['vllm-args', setup, ...own, ...flags]);
    if (code !== 0) throw new Error(`vllm-args ${setup} ended with ${code}: ${stderr}`);
    const args = JSON.parse(stdout);
    if (args.file) writeFileSync(file, JSON.stringify(args.file.content));
    return { transfer: args.kvTransferConfig, env: args.env, args: args.flags };
  }

  /** An engine with the stock store connector. */
  async engine(name: string, llm?: LlmOptions): Promise<Engine> {
    return Engine.start({ name, ...(await this.args('store')), llm });
  }

  get #settings() {
    return {
      metadata_server: 'P2PHANDSHAKE',
      master_server_address: this.address,
      protocol: 'tcp',
      device_name: '',
      local_hostname: '127.0.0.1',
    };
  }

  async startNode(kind: Kind, bytes: number, settings: Record<string, unknown> = {}): Promise<void> {
    const config = join(this.folder, 'node.json');
    writeFileSync(config, JSON.stringify({ ...this.#settings, global_segment_size: bytes, ...settings }));
    this.#node = kind === 'ours' ? await ours(config) : await stock(config);
  }

  /** Kills the node, with all that it holds. */
  async killNode(): Promise<void> {
    await this.#node?.end('SIGKILL');
    this.#node = undefined;
  }

  /** The keys of all objects. */
  async keys(): Promise<string[]> {
    const text = await this.#ask('/get_all_keys');
    return text.split('\n').filter((line) => line !== '');
  }

  /** Waits until as many objects are there: saving goes on behind an engine's answers. */
  async holds(count: number): Promise<string[]> {
    const deadline = Date.now() + START_MS;
    for (;;) {
      const keys = await this.keys();
      if (keys.length >= count) return keys;
      if (Date.now() > deadline) throw new Error(`${keys.length} objects after ${START_MS} ms, ${count} wanted`);
      await wait(50);
    }
  }

  async #ask(path: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.master.adminPort}${path}`, {
      signal: AbortSignal.timeout(START_MS),
    });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.text();
  }

  /** Flips every bit of the objects' bytes where they lie, behind the back of everybody who keeps a checksum of them. */
  async corrupt(keys: readonly string[]): Promise<void> {
    const engine = await TransferEngine.create();
    try {
      for (const key of keys) {
        const { data } = JSON.parse(await this.#ask(`/query_key?key=${encodeURIComponent(key)}`));
        for (const { size_: size, buffer_address_: address, transport_endpoint_: endpoint } of data) {
          const peer = await engine.open(endpoint);
          const there = peer.at(BigInt(address), size);
          const here = await engine.allocate(size);
          await engine.read(peer, one(there.segment, there.offset, here.id, 0, size));
          for (let i = 0; i < size; i++) here.memory[i] ^= 255;
          await engine.write(peer, one(here.id, 0, there.segment, there.offset, size));
          await engine.unregister(here.id);
        }
      }
    } finally {
      await engine.close();
    }
  }

  async end(): Promise<void> {
    await this.#node?.end('SIGTERM');
    await this.master.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function ours(config: string): Promise<NodeProcess> {
  const node = await CommandProcess.start(['store', '--config', config, '--port=0', '--json']);
  return { url: JSON.parse(node.lines[0]).url, end: (signal) => node.end(signal) };
}

const services = new Set<ChildProcess>();
process.on('exit', () => {
  for (const service of services) service.kill('SIGKILL');
});

async function stock(config: string): Promise<NodeProcess> {
  const port = await freePort();
  const module = ['-m', 'mooncake.mooncake_store_service', '--config', config, '--port', `${port}`];
  const service = spawn(process.env.MOONCAKE_PYTHON!, module, { stdio: ['ignore', 'ignore', 'pipe'] });
  services.add(service);
  const exited = once(service, 'exit').then(() => services.delete(service));
  let log = '';
  service.stderr!.setEncoding('utf8').on('data', (text) => {
    log = (log + text).slice(-4000);
  });
  const url = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + START_MS;
  while (
    !(await fetch(url, { signal: AbortSignal.timeout(2000) }).then(
      () => true,
      () => false,
    ))
  ) {
    if (Date.now() > deadline || !services.has(service)) {
      service.kill('SIGKILL');
      throw new Error(`no stock store service\n${log}`);
    }
    await wait(100);
  }
  return {
    url,
    end: (signal) => {
      service.kill(signal);
      return exited;
    },
  };
}
