/** Descriptors for peers, gathered piece by piece: one batch for each peer that a call reaches. */
import type { Descriptors } from '../core/descriptors.js';
import { DescriptorList } from '../transfer/descriptor-list.js';
import type { Peer } from '../transfer/transfer.js';

/** Batches by peer. */
export class Moves {
  readonly #lists = new Map<Peer, DescriptorList>();

  get empty(): boolean {
    return this.#lists.size === 0;
  }

  of(peer: Peer): DescriptorList {
    let list = this.#lists.get(peer);
    if (list === undefined) this.#lists.set(peer, (list = new DescriptorList()));
    return list;
  }

  /**
   * Runs `move` for every batch; what went wrong, by peer. Waits for all, also when one fails, so that none writes on
   * afterwards.
   */
  async run(move: (peer: Peer, descriptors: Descriptors) => Promise<unknown>): Promise<Map<Peer, unknown>> {
    const failures = new Map<Peer, unknown>();
    const one = async (peer: Peer, list: DescriptorList) => {
      try {
        await move(peer, list.descriptors());
      } catch (error) {
        failures.set(peer, error);
      }
    };
    await Promise.all([...this.#lists].map(([peer, list]) => one(peer, list)));
    return failures;
  }
}
