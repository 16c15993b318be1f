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
export class RankPlan {
  readonly group: number;
  readonly layers: readonly number[];
  /** The group on either side. */
  readonly source: KvGroup;
  readonly destination: KvGroup;
  readonly plan: TransferPlan;
  readonly #ofLayer: (layer: number) => RankPlan;
  readonly #byLayer = new Map<number, RankPlan>();

  constructor(source: KvLayout, destination: KvLayout, part: Omit<TransferSource, 'source'>) {
    const { group, layers, heads } = part;
    this.group = group;
    this.layers = layers;
    this.source = source.groups[group];
    this.destination = destination.groups[group];
    this.plan = new TransferPlan(source, destination, { group, layers, heads });
    this.#ofLayer = (layer) => new RankPlan(source, destination, { group, layers: [layer], heads });
  }

  /** What of it is in one layer. */
  of(layer: number): RankPlan {
    let plan = this.#byLayer.get(layer);
    if (plan === undefined) this.#byLayer.set(layer, (plan = this.#ofLayer(layer)));
    return plan;
  }
}

export function rankPlans(source: KvLayout, destination: KvLayout, parts: readonly TransferSource[]): RankPlan[] {
  return parts.map((part) => new RankPlan(source, destination, part));
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
    const blocks = {
      sourceBlocks: source[group] ?? [],
      destinationBlocks: destination[group] ?? [],
      tokens: ofGroup(ranks.destination, tokens),
    };
    checkWindow(ranks, blocks);
    for (const descriptors of ranks.plan.chunks(blocks, MAX_RECORDS)) {
      const report = await batch(descriptors);
      bytes += report.bytes;
      verifiedBytes += report.verifiedBytes;
    }
  }
  return { bytes, verifiedBytes };
}

/**
 * Bytes that a move of `tokens` into these blocks has at least: those of the groups whose tokens are all needed. What else
 * moves depends on the windows that the prefill has kept.
 */
export function leastBytes(plans: readonly RankPlan[], destination: GroupBlocks, tokens: KvRange): number {
  let bytes = 0;
  for (const { group, plan, source, destination: into } of plans) {
    if (!needsAll(source)) continue;
    const destinationBlocks = destination[group] ?? [];
    // Which blocks they come from does not change how many bytes they are.
    const count = Math.ceil((destinationBlocks.length * into.blockSize) / source.blockSize);
    const sourceBlocks = Array.from({ length: count }, (_, index) => index % source.blocks);
    const blocks = { sourceBlocks, destinationBlocks, tokens };
    for (const descriptors of plan.chunks(blocks, MAX_RECORDS)) bytes += descriptors.totalBytes;
  }
  return bytes;
}

/** What of `tokens` a group moves: of states, the one behind the last token. */
function ofGroup({ kind, blockSize }: KvGroup, { from, to }: KvRange): KvRange {
  return { from: kind === 'state' ? Math.max(from, to - blockSize) : from, to };
}

/** The least tokens that fill blocks of every one of these sizes. */
export function leastCommonMultiple(...sizes: readonly number[]): number {
  return sizes.reduce((a, b) => {
    let [high, low] = [a, b];
    while (low > 0) [high, low] = [low, high % low];
    return (a / high) * b;
  });
}

/** Whether each token of a prompt has its own place in the group, to which nothing is written after it. */
export const needsAll = ({ kind }: KvGroup) => kind === 'full' || kind === 'mla';

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
