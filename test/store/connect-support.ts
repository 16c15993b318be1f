/** What the tests of joined stores share: a master in this process, stores that join it, and nodes in processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ConnectOptions, MooncakeStore } from 'mooncake-ts';
import { MooncakeMaster, type MooncakeMasterOptions } from 'mooncake-ts/master';

const file = fileURLToPath(new URL('./connect-child.js', import.meta.url));
const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

export interface Node {
  /** Its endpoint, which is the name of its segment. */
  readonly name: string;
  signal(signal: NodeJS.Signals): void;
  /** Kills it; resolves when it is gone. */
  end(): Promise<void>;
}

/** A store of 64 MiB in a process of its own. */
export async function startNode(master: string, plane: 'native' | 'portable'): Promise<Node> {
  const child = spawn(process.execPath, [file, master, plane], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const name = await new Promise<string>((resolve, reject) => {
    child.stdout?.setEncoding('utf8').once('data', (text: string) => resolve(text.trim()));
    child.once('exit', () => reject(new Error('the node died')));
  });
  return {
    name,
    signal: (signal) => void child.kill(signal),
    end() {
      child.kill('SIGKILL');
      children.delete(child);
      return exited;
    },
  };
}

export interface Cluster {
  readonly master: MooncakeMaster;
  /** host:port of the master. */
  readonly address: string;
  join(options?: ConnectOptions): Promise<MooncakeStore>;
  /** A portable one hangs when it is stopped; a native one's memory can be reached all the same. */
  node(plane?: 'native' | 'portable'): Promise<Node>;
}

/** Runs `use` with a cluster of which nothing is left afterwards. */
export async function withCluster(
  options: MooncakeMasterOptions,
  use: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  const master = await MooncakeMaster.listen({ port: 0, admin: false, ...options });
  const address = `127.0.0.1:${master.ports.rpc}`;
  const stores: MooncakeStore[] = [];
  const nodes: Node[] = [];
  try {
    await use({
      master,
      address,
      async join(connect = {}) {
        const store = await MooncakeStore.connect({ master: address, ...connect });
        stores.push(store);
        return store;
      },
      async node(plane = 'native') {
        const node = await startNode(address, plane);
        nodes.push(node);
        return node;
      },
    });
  } finally {
    await Promise.all(nodes.map((node) => node.end()));
    await Promise.all(stores.map((store) => store.close()));
    await master.close();
  }
}

export async function until(condition: () => boolean | Promise<boolean>, what = 'it'): Promise<void> {
  const end = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what} did not come true in twenty seconds`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
