/** An owner that does not say what the store behind it says: answers are changed, kept back or lost on their way. */
import { LocalTransfer, MooncakeStore } from 'mooncake-ts';

export type Message = Record<string, unknown>;
/** What becomes of a call: `answer` asks the store behind. */
export type Change = (call: string, answer: () => Promise<unknown>) => unknown;

export interface Proxied {
  owner: MooncakeStore;
  client: MooncakeStore;
  /** The client's transfer. */
  transfer: LocalTransfer;
  /** Changes answers from now on. */
  change(how: Change): void;
}

export async function proxied(use: (pair: Proxied) => Promise<void>, options: object = {}): Promise<void> {
  const [behind, before, transfer] = [new LocalTransfer(), new LocalTransfer(), new LocalTransfer()];
  const owner = new MooncakeStore({ segments: '64MB', transfer: behind, ...options });
  owner.serve();
  const peer = await before.connect(behind.address);
  let change: Change = (_, answer) => answer();
  before.serve('mooncake-store', async (request) => {
    const { call } = request as Message;
    const answer = () => peer.call('mooncake-store', request);
    // The client reaches the segments where they are, as the proxy has none.
    if (call === 'hello') return { ...((await answer()) as Message), home: 'elsewhere' };
    return change(`${call}`, answer);
  });
  const client = await MooncakeStore.attach({ transfer, address: before.address, ...options });
  try {
    await use({ owner, client, transfer, change: (how) => (change = how) });
  } finally {
    change = (_, answer) => answer();
    await client.close();
    await owner.close();
    for (const each of [transfer, before, behind]) await each.close();
  }
}
