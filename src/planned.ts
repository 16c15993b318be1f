/**
 * Names that the package promises and this version does not have yet. They exist so that a program that imports them
 * learns at once what is missing instead of failing on an undefined import; each throws ERR_NOT_SUPPORTED.
 */
import { errors } from './core/errors.js';

const VERSION_HAS = 'this version has block hashing, prefix matching, layout, allocation, worker pools and replay';

abstract class Planned {
  constructor() {
    throw errors.notSupported(new.target.name, VERSION_HAS);
  }
}

/** The KV store, embedded or connected to a master. */
export class MooncakeStore extends Planned {
  /** Joins a cluster through its master. */
  static connect(): never {
    throw errors.notSupported('MooncakeStore.connect', VERSION_HAS);
  }
}
/** Sharing of cached prefixes through the store. */
export class MooncakeStoreConnector extends Planned {}
/** Transfers between registered memories. */
export class TransferEngine extends Planned {}
/** The metadata service of the store. */
export class MooncakeMaster extends Planned {}
