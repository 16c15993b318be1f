/**
 * Names that the package promises and this version does not have yet. They exist so that a program that imports them
 * learns at once what is missing instead of failing on an undefined import; each throws ERR_NOT_SUPPORTED.
 */
import { errors } from './core/errors.js';

const VERSION_HAS = 'this version has the core, the embedded store, the connectors and the transfer engine';

abstract class Planned {
  constructor() {
    throw errors.notSupported(new.target.name, VERSION_HAS);
  }
}

/** The metadata service of the store. */
export class MooncakeMaster extends Planned {}
