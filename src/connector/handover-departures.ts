/** What to do when a peer is gone: one listener per peer, however many hand-overs it takes while it lives. */
import type { Peer } from '../transfer/transfer.js';

export class Departures {
  readonly #byPeer = new Map<Peer, Set<() => void>>();

  /** Calls `act` once when the peer is gone, unless the function returned was called before. */
  when(peer: Peer, act: () => void): () => void {
    let acts = this.#byPeer.get(peer);
    if (acts === undefined) {
      this.#byPeer.set(peer, (acts = new Set()));
      void peer.closed.then(() => {
        const left = this.#byPeer.get(peer) ?? [];
        this.#byPeer.delete(peer);
        for (const one of [...left]) one();
      });
    }
    // Two that share a function are two.
    const once = () => act();
    acts.add(once);
    return () => {
      acts.delete(once);
    };
  }
}
