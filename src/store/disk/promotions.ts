/**
 * Objects on their way back from a disk to memory, ours or a peer's: where to, the master says. What it has forgotten since is
 * carried on no further, as the room may be another's by then.
 *
 *   PromotionAllocStart ─► DiskTier ─► Counter ─► memory ─► NotifyPromotionSuccess
 */
import { onAbort } from '../../pool/abort.js';
import { METHODS, type replica } from '../../rpc/schemas/v0_3_13.js';
import type { Value } from '../../rpc/types.js';
import type { Counter, Staged } from './counter.js';
import { diskKey } from './key.js';
import type { DiskTask, Lent } from './lender.js';

export class Promotions {
  readonly #lent: Lent;
  readonly #counter: Counter;
  readonly #end: AbortSignal;

  /** `end` aborts what is under way. */
  constructor(lent: Lent, counter: Counter, end: AbortSignal) {
    this.#lent = lent;
    this.#counter = counter;
    this.#end = end;
  }

  /** Brings one object back, or says that it could not be had. */
  async carryOut({ tenant, key, size }: DiskTask): Promise<void> {
    const { client, call } = this.#lent;
    const args = { client, key, tenant };
    const said = this.#lent.said();
    const started = await call(METHODS.PromotionAllocStart, { ...args, size, preferredSegments: [] });
    const buffer = started.ok ? memoryOf(started.value.target) : undefined;
    const batch = buffer && (await this.#counter.stage([diskKey(tenant, key)], [Number(size)]));
    if (!buffer || !batch) {
      await call(METHODS.NotifyPromotionFailure, args);
      return;
    }
    try {
      await this.#bringBack(buffer, batch.objects[0], said);
    } finally {
      this.#counter.release(batch.number);
    }
    await call(METHODS.NotifyPromotionSuccess, args);
  }

  /** What it throws is not said to the master, which gives the room away when nothing can land there any more. */
  async #bringBack({ endpoint, address }: Buffered, staged: Staged, said: AbortSignal): Promise<void> {
    const either = new AbortController();
    const ends = [said, this.#end];
    const forget = ends.map((signal) => onAbort(signal, () => either.abort(signal.reason)));
    try {
      for (const signal of ends) signal.throwIfAborted();
      await this.#lent.write(endpoint, address, staged, either.signal);
      said.throwIfAborted();
    } finally {
      for (const each of forget) each();
    }
  }
}

interface Buffered {
  readonly endpoint: string;
  readonly address: bigint;
}

function memoryOf({ descriptor }: Value<typeof replica>): Buffered | undefined {
  return descriptor.kind === 'memory' ? descriptor.value.buffer : undefined;
}
