/** What every move may say, with what holds where it does not: deadline, abort, and whether it is verified. */
import { integer, options as optionsOf } from '../core/check.js';
import { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import { checkLimits, type Limits, MAX_TIMEOUT_MS } from './limits.js';
import type { CallLimits, GpuOrder, MoveOptions, Verify } from './transfer.js';

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
  gpu?: GpuOrder;
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
    const gpu = checkOrder(options?.gpu);
    return { descriptors, limits, verify: this.#verifies(verify), gpu };
  }

  /** The first of every N batches is verified where one in N is. */
  #verifies(verify: Verify): boolean {
    return typeof verify === 'object' ? this.#sampled++ % verify.sampled === 0 : verify === 'full';
  }
}

function checkOrder(order: GpuOrder | undefined): GpuOrder | undefined {
  if (order === undefined) return undefined;
  const { waitFor, record, rows } = optionsOf('options.gpu', order);
  for (const [name, events] of Object.entries({ waitFor, record })) {
    if (events === undefined) continue;
    if (!Array.isArray(events)) throw errors.invalidArgument(`options.gpu.${name}`, events, 'an array of events');
    for (const event of events) integer(`options.gpu.${name}`, event, 0, 0xffff_ffff);
  }
  if (rows !== undefined) {
    const { count, sourceStride, destinationStride } = optionsOf('options.gpu.rows', rows);
    integer('options.gpu.rows.count', count, 1, 0xffff_ffff);
    integer('options.gpu.rows.sourceStride', sourceStride, 0, Number.MAX_SAFE_INTEGER);
    integer('options.gpu.rows.destinationStride', destinationStride, 0, Number.MAX_SAFE_INTEGER);
  }
  return order;
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
