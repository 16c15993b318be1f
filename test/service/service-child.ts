/** A node service in a process of its own, for tests: `node service-child.js '{…}'`; its lines are events of it. */
import { MooncakeStore, NodeService, TcpTransfer } from 'mooncake-ts';

export interface ChildOptions {
  socket: string;
  /** Joins a cluster; without one it has a store of its own. */
  master?: string;
  verify?: boolean;
}

const { socket, master, verify }: ChildOptions = JSON.parse(process.argv[2]);
const transfer = await TcpTransfer.listen({ native: true });
const store = master
  ? await MooncakeStore.connect({ master, verify })
  : new MooncakeStore({ segments: 1 << 20, verify });
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const service = await NodeService.start({
  socket,
  store,
  transfer,
  onEvent: say,
  onError: (error) => say({ what: 'error', text: String(error) }),
});
say({ what: 'listening', instance: service.instance });
process.on('SIGTERM', async () => {
  await service.close();
  await store.close();
  await transfer.close();
});
