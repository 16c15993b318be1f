/** Metadata without a server: a name is the place of an engine, and the engine itself says what it has. */
import type { Limits } from '../limits.js';
import type { Place } from '../tcp/address.js';
import type { Metadata } from './backend.js';
import { exchange, HANDSHAKE } from './handshake.js';
import { parseName } from './name.js';

export class P2pMetadata implements Metadata {
  #own = '{}';

  /** Stock engines send their own descriptor along when they ask for another. */
  async publish(_name: string, _place: Place, descriptor: string): Promise<void> {
    this.#own = descriptor;
  }

  async withdraw(): Promise<void> {}

  async find(name: string, limits: Limits): Promise<string> {
    return exchange(parseName('name', name), HANDSHAKE.metadata, this.#own, limits);
  }

  async place(name: string): Promise<Place> {
    return parseName('name', name);
  }
}
