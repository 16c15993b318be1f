/** An engine's descriptor, and its place in the metadata: put again whenever its segments change, one put at a time. */
import type { Metadata } from '../metadata/backend.js';
import type { Place } from '../tcp/address.js';

export class Announcement {
  readonly #metadata: Metadata;
  readonly #name: string;
  readonly #place: Place;
  readonly #describe: () => string;
  /** The put under way, and the one behind it, which everybody who comes meanwhile shares. */
  #current?: Promise<void>;
  #next?: Promise<void>;

  constructor(metadata: Metadata, name: string, place: Place, describe: () => string) {
    this.#metadata = metadata;
    this.#name = name;
    this.#place = place;
    this.#describe = describe;
  }

  /** Resolves when others can see what is true now. Throws what the metadata throws. */
  publish(): Promise<void> {
    if (this.#next) return this.#next;
    if (!this.#current) return (this.#current = this.#put());
    const next = this.#current
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return (this.#current = this.#put());
      });
    this.#next = next;
    return next;
  }

  async #put(): Promise<void> {
    try {
      await this.#metadata.publish(this.#name, this.#place, this.#describe());
    } finally {
      this.#current = undefined;
    }
  }

  /** Never throws: an engine must be able to end where the metadata is gone before it. */
  async withdraw(): Promise<void> {
    await this.#next?.catch(() => {});
    await this.#current?.catch(() => {});
    await this.#metadata.withdraw(this.#name).catch(() => {});
  }
}
