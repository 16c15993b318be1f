/** `mooncake-ts service` in a process, and the options of engines that attach to it with our connectors. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { main } from '../../support/cli.js';
import { CommandProcess } from '../../support/node-process.js';
import type { Cluster } from './cluster.js';
import { Engine, type KvTransferConfig, type LlmOptions } from './engine.js';

const run = promisify(execFile);

export interface ServiceOptions {
  /** The cluster whose store it joins; without one it has a store of its own. */
  readonly cluster?: Cluster;
}

export class NodeService {
  readonly folder = mkdtempSync(join(tmpdir(), 'mooncake-service-'));
  readonly socket = join(this.folder, 'service.sock');
  readonly #flags: string[];
  #process?: CommandProcess;

  private constructor({ cluster }: ServiceOptions) {
    this.#flags = ['--store', '256MB'];
    if (cluster === undefined) return;
    const config = join(this.folder, 'service.json');
    const settings = {
      metadata_server: 'P2PHANDSHAKE',
      master_server_address: cluster.address,
      global_segment_size: 0,
    };
    writeFileSync(config, JSON.stringify({ ...settings, protocol: 'tcp', local_hostname: '127.0.0.1' }));
    this.#flags = ['--config', config];
  }

  static async start(options: ServiceOptions = {}): Promise<NodeService> {
    const service = new NodeService(options);
    await service.again();
    return service;
  }

  /** A service for as long as `work` takes. */
  static async use(work: (service: NodeService) => Promise<void>, options?: ServiceOptions): Promise<void> {
    const service = await NodeService.start(options);
    try {
      await work(service);
    } finally {
      await service.end();
    }
  }

  /** An engine with our store connector. */
  async engine(name: string, llm?: LlmOptions): Promise<Engine> {
    return Engine.start({ name, ...(await this.args('store')), llm });
  }

  /** Starts it where it does not run. */
  async again(): Promise<void> {
    this.#process = await CommandProcess.start(['service', '--socket', this.socket, '--json', ...this.#flags]);
  }

  /** As a machine that loses power, but for the engines. */
  async kill(): Promise<void> {
    await this.#process?.end('SIGKILL');
    this.#process = undefined;
  }

  /** What `mooncake-ts vllm-args` gives an engine with our connectors, as options of Engine.start and Server.start. */
  async args(setup: string, ...flags: string[]): Promise<{ transfer: KvTransferConfig; env: Record<string, string> }> {
    const own = ['vllm-args', setup, '--connector', 'ours', '--service', this.socket, '--json'];
    const { stdout } = await run(process.execPath, [main, ...own, ...flags]);
    const { kvTransferConfig, env } = JSON.parse(stdout);
    // vLLM's default: the adapter must not need the user to know of it.
    const transfer = { ...kvTransferConfig, kv_load_failure_policy: 'fail' };
    return { transfer, env: { ...env, PYTHONPATH: process.env.MOONCAKE_VLLM_ADAPTER! } };
  }

  async end(): Promise<void> {
    await this.#process?.end('SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
