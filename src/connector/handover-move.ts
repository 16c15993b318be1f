/** The bytes of a hand-over between two ranks: every part of the plan, in pieces that a transport can hold. */
import type { Descriptors } from '../core/descriptors.js';
import type { KvLayout } from '../core/layout.js';
import type { KvRange } from '../core/layout-group.js';
import { TransferPlan } from '../core/layout-plan.js';
import type { TransferSource } from '../core/layout-sources.js';
import type { MoveReport } from '../transfer/transfer.js';
import type { GroupBlocks } from './api.js';

/** Records of one batch: 1 MiB of descriptors. */
const MAX_RECORDS = 1 << 15;

/** One part of what a rank reads from another, ready to be turned into descriptors. */
export interface RankPlan {
  readonly group: number;
  readonly plan: TransferPlan;
}

export function rankPlans(source: KvLayout, destination: KvLayout, parts: readonly TransferSource[]): RankPlan[] {
  return parts.map(({ group, layers, heads }) => ({
    group,
    plan: new TransferPlan(source, destination, { group, layers, heads }),
  }));
}

/** What to move: `tokens` of a prompt, from the prefill's blocks to the decode's, by group. */
export interface MoveBlocks {
  readonly source: GroupBlocks;
  readonly destination: GroupBlocks;
  readonly tokens: KvRange;
}

/** Moves it all, batch after batch; bytes moved and verified. Throws ERR_INVALID_ARGUMENT where the blocks do not cover the tokens. */
export async function move(
  plans: readonly RankPlan[],
  { source, destination, tokens }: MoveBlocks,
  batch: (descriptors: Descriptors) => Promise<MoveReport>,
): Promise<Pick<MoveReport, 'bytes' | 'verifiedBytes'>> {
  let bytes = 0;
  let verifiedBytes = 0;
  for (const { group, plan } of plans) {
    const blocks = { sourceBlocks: source[group] ?? [], destinationBlocks: destination[group] ?? [], tokens };
    for (const descriptors of plan.chunks(blocks, MAX_RECORDS)) {
      const report = await batch(descriptors);
      bytes += report.bytes;
      verifiedBytes += report.verifiedBytes;
    }
  }
  return { bytes, verifiedBytes };
}
