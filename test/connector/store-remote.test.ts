/** MooncakeStoreConnector over TCP: the store in a process of its own, each engine attached by itself, and real kills. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { MooncakeStore, MooncakeStoreConnector, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import { conformance, type World } from './conformance.js';

const CHILD = fileURLToPath(new URL('./store-child.js', import.meta.url));

async function start(port: number): Promise<{ child: ChildProcess; address: string }> {
  const child = fork(CHILD, [String(port)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [address] = await once(child, 'message', { signal: AbortSignal.timeout(20_000) });
  return { child, address };
}

/** A child that the last scenario left alive. */
let spare: Awaited<ReturnType<typeof start>> | undefined;

async function remote(loadAsync: boolean, unchecked: boolean): Promise<World> {
  let { child, address } = spare ?? (await start(0));
  spare = undefined;
  const open: { close(): Promise<void> }[] = [];
  const ask = async (command: string) => {
    child.send(command);
    const [answer] = await once(child, 'message', { signal: AbortSignal.timeout(10_000) });
    return answer as number;
  };
  const attach = async (): Promise<MooncakeStore> => {
    const transfer = await TcpTransfer.listen();
    open.push(transfer);
    const store = await MooncakeStore.attach({ transfer, address, timeoutMs: 5000, verify: !unchecked });
    open.push(store);
    return store;
  };
  const kill = async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  return {
    connector: async () =>
      new MooncakeStoreConnector({ store: await attach(), loadAsync, peerTensorParallelSizes: [1, 2, 4] }),
    evict: async () => {
      await (await attach()).removeAll({ force: true });
    },
    corrupt: async () => {
      await ask('corrupt');
    },
    kill,
    revive: async () => {
      ({ child } = await start(Number(address.split(':').at(-1))));
    },
    count: () => ask('count'),
    close: async () => {
      await (await attach()).removeAll({ force: true });
      for (const each of open.reverse()) await each.close();
      spare = { child, address };
    },
  };
}

for (const loadAsync of [true, false]) {
  conformance(
    {
      name: `store over TCP, ${loadAsync ? 'asynchronous' : 'by layer'}`,
      capabilities: ['shared', 'tensorParallel', 'evict', 'corrupt', 'unchecked', 'kill'],
      world: ({ unchecked }) => remote(loadAsync, unchecked),
    },
    test,
  );
}

test.after(() => {
  spare?.child.kill('SIGKILL');
});
test.run();
