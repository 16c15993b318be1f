/**
 * The disks that clients lend: each client has at most one, whose files only it can read and write; others ask its RPC
 * service for them. An object has a copy on one disk at most, whose number is in its record.
 */
import type { Uuid } from './api.js';

export interface Disk {
  /** From 1; that of a disk that is gone is used again. */
  readonly number: number;
  readonly client: Uuid;
  /** Whether the client writes objects to it. */
  accepts: boolean;
  /** Address of the client's RPC service, by which others read from it. */
  endpoint: string;
  /** What the client says it may fill, in bytes; 0: it does not say. */
  capacityBytes: number;
  /** Copies on it, and their bytes. */
  objects: number;
  usedBytes: number;
  /** All that was on it was removed: the client may delete its files. */
  mayWipe: boolean;
  /** It is gone for everybody; what was on it is being struck out (disk-unmounts.ts). */
  isWithdrawn: boolean;
}

export class Disks {
  readonly #byClient = new Map<Uuid, Disk>();
  readonly #byNumber: (Disk | undefined)[] = [undefined];

  /** The client's disk, a new one where it has none. */
  mount(client: Uuid, accepts: boolean): Disk {
    const known = this.#byClient.get(client);
    if (known) {
      known.accepts = accepts;
      return known;
    }
    const free = this.#byNumber.indexOf(undefined, 1);
    const number = free < 0 ? this.#byNumber.length : free;
    const disk: Disk = {
      number,
      client,
      accepts,
      endpoint: '',
      capacityBytes: 0,
      objects: 0,
      usedBytes: 0,
      mayWipe: false,
      isWithdrawn: false,
    };
    this.#byClient.set(client, disk);
    this.#byNumber[number] = disk;
    return disk;
  }

  /** Takes a disk from its client's sight; records may still name it. */
  withdraw(disk: Disk): void {
    disk.isWithdrawn = true;
    this.#byClient.delete(disk.client);
  }

  /** Forgets a disk that was withdrawn, and that no record names any more. */
  forget(disk: Disk): void {
    this.#byNumber[disk.number] = undefined;
  }

  of(client: Uuid): Disk | undefined {
    return this.#byClient.get(client);
  }

  /** The disk that a record names. */
  at(number: number): Disk {
    const disk = this.#byNumber[number];
    if (!disk) throw new Error(`disk ${number} is not mounted`);
    return disk;
  }

  /** Which share of its disk a client has left, 0 to 1; 0 where it lends none, or does not say how large it is. */
  freeShare(client: Uuid): number {
    const disk = this.#byClient.get(client);
    return disk && disk.capacityBytes > 0 ? Math.max(0, 1 - disk.usedBytes / disk.capacityBytes) : 0;
  }

  get all(): readonly Disk[] {
    return [...this.#byClient.values()];
  }
}
