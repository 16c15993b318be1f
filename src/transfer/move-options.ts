/** What every move may say, with what holds where it does not: deadline, abort, and whether it is verified. */
import { integer, options as optionsOf } from '../core/check.js';
import { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import { checkLimits, type Limits, MAX_TIMEOUT_MS } from './limits.js';
import type { CallLimits, MoveOptions, Verify } from './transfer.js';

export interface MoveDefaultOptions {
  /** Deadline of operations that name none, in milliseconds. Default 30,000. */
  timeoutMs?: number;
  /** Which moves are verified where they do not say. Default `full`. */
  verify?: Verify;
}

/** A move whose arguments are checked. */
export interface Move {
  descriptors: Descriptors;
  limits: Limits;
  verify: boolean;
}

export class MoveDefaults {
  readonly timeoutMs: number;
  readonly #verify: Verify;
  #sampled = 0;

  constructor({ timeoutMs = 30_000, verify = 'full' }: MoveDefaultOptions) {
    this.timeoutMs = integer('options.timeoutMs', timeoutMs, 1, MAX_TIMEOUT_MS);
    this.#verify = checkVerify('options.verify', verify);
  }

  limits(limits: CallLimits | undefined): Limits {
    return checkLimits(limits, this.timeoutMs);
  }

  /** The descriptors are the caller's own: who needs them after the call copies them. */
  move(descriptors: Descriptors, options: MoveOptions | undefined): Move {
    if (!(descriptors instanceof Descriptors)) {
      throw errors.invalidArgument('descriptors', descriptors, 'Descriptors');
    }
    const { verify = this.#verify } = optionsOf('options', options);
    checkVerify('options.verify', verify);
    const limits = this.limits(options);
    return { descriptors, limits, verify: this.#verifies(verify) };
  }

  /** The first of every N batches is verified where one in N is. */
  #verifies(verify: Verify): boolean {
    return typeof verify === 'object' ? this.#sampled++ % verify.sampled === 0 : verify === 'full';
  }
}

function checkVerify(argument: string, verify: Verify): Verify {
  if (verify === 'full' || verify === 'off') return verify;
  if (typeof verify !== 'object' || verify === null) {
    throw errors.invalidArgument(argument, verify, '"full", "off" or { sampled: N }');
  }
  integer(`${argument}.sampled`, verify.sampled, 1, Number.MAX_SAFE_INTEGER);
  return verify;
}

/** The move with descriptors of its own: the caller may write his again. */
export const detached = (move: Move): Move => ({
  ...move,
  descriptors: new Descriptors(move.descriptors.bytes.slice()),
});
