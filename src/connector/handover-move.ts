/** The bytes of a hand-over between two ranks: every part of the plan, in pieces that a transport can hold. */
import type { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { KvLayout } from '../core/layout.js';
import { type KvGroup, type KvRange, NO_BLOCK } from '../core/layout-group.js';
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
  /** The group on either side. */
  readonly source: KvGroup;
  readonly destination: KvGroup;
}

export function rankPlans(source: KvLayout, destination: KvLayout, parts: readonly TransferSource[]): RankPlan[] {
  return parts.map(({ group, layers, heads }) => ({
    group,
    plan: new TransferPlan(source, destination, { group, layers, heads }),
    source: source.groups[group],
    destination: destination.groups[group],
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
  for (const ranks of plans) {
    const { group } = ranks;
    const blocks = { sourceBlocks: source[group] ?? [], destinationBlocks: destination[group] ?? [], tokens };
    checkWindow(ranks, blocks);
    for (const descriptors of ranks.plan.chunks(blocks, MAX_RECORDS)) {
      const report = await batch(descriptors);
      bytes += report.bytes;
      verifiedBytes += report.verifiedBytes;
    }
  }
  return { bytes, verifiedBytes };
}

/** Whether an id stands for no block: in a group with a window, what it has left behind. */
export function isHole({ nullBlock }: KvGroup, id: number): boolean {
  return nullBlock !== null && (id === nullBlock || id === -1 || id === NO_BLOCK);
}

/**
 * A plan asks for what the token behind the prompt sees. The decode computes the prompt's last token again, and that one
 * sees one token more, which an engine that has gone on may have freed.
 */
function checkWindow(
  { source, destination }: RankPlan,
  { sourceBlocks, destinationBlocks, tokens }: WindowBlocks,
): void {
  if (source.window === null) return;
  const first = tokens.to - source.window;
  if (first < tokens.from) return;
  const [from, to] = [Math.floor(first / source.blockSize), Math.floor(first / destination.blockSize)];
  if (isHole(destination, destinationBlocks[to]) || !isHole(source, sourceBlocks[from])) return;
  const expected = `a block: the prompt's last token is computed again, and sees token ${first}`;
  throw errors.invalidArgument(`sourceBlocks[${from}]`, sourceBlocks[from], expected);
}

interface WindowBlocks {
  readonly sourceBlocks: readonly number[];
  readonly destinationBlocks: readonly number[];
  readonly tokens: KvRange;
}
