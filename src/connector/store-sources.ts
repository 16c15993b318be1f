/**
 * Where a rank's bytes lie in the store: in objects of its own, or in those of a deployment with another number of
 * tensor-parallel ranks. A rank of two finds its half of the heads in the one object that a single rank saved; a single
 * rank puts two halves together.
 */
import { MooncakeError } from '../core/errors.js';
import type { KvLayout } from '../core/layout.js';
import { TransferPlan } from '../core/layout-plan.js';
import { transferSources } from '../core/layout-sources.js';
import type { Namespace } from './namespace.js';
import { type ObjectLayout, objectLayout } from './store-objects.js';

/** The objects of one rank of a deployment, as far as another rank needs them. */
export interface Slice {
  readonly prefix: Uint8Array;
  /** Bytes of an object. */
  readonly bytes: number;
  /** All of an object belongs to this rank: it is read straight into the cache. Others are read aside and picked apart. */
  readonly whole: boolean;
  /** From objects to the cache; made for one layer when asked for. */
  plan(layer?: number): TransferPlan;
  /** From objects that were read aside, block after block, into segment `segment`. */
  asidePlans(segment: number): { read: TransferPlan; scatter: TransferPlan };
}

export interface Source {
  /** Ranks of the deployment. */
  readonly size: number;
  /** By group: the slices that make up this rank's part of a block. */
  readonly groups: readonly (readonly Slice[])[];
}

/**
 * The sources of a rank: `sizes` in this order, its own first. Sizes for which the heads cannot be cut that way (a shard
 * of a state is opaque, more ranks than heads divide) are left out.
 */
export function sourcesOf(engine: KvLayout, namespace: Namespace, sizes: readonly number[]): Source[] {
  const own = engine.tensorParallel.size;
  return [...new Set([own, ...sizes])].flatMap((size) => {
    try {
      return [sourceOf(engine, namespace, size)];
    } catch (error) {
      const cannot =
        error instanceof MooncakeError && ['ERR_LAYOUT_MISMATCH', 'ERR_INVALID_ARGUMENT'].includes(error.code);
      if (size === own || !cannot) throw error;
      return [];
    }
  });
}

function sourceOf(engine: KvLayout, namespace: Namespace, size: number): Source {
  const ranks = Array.from({ length: size }, (_, rank) => objectLayout(engine, { rank, size }));
  const { tensorParallel } = engine;
  const groups = engine.groups.map((_, group) => {
    const needed =
      size === tensorParallel.size
        ? [tensorParallel.rank]
        : transferSources(
            engine,
            ranks.map(({ layout }) => layout),
            { group },
          ).map(({ source }) => source);
    return [...new Set(needed)]
      .filter((rank) => ranks[rank].bytes[group] > 0)
      .map((rank) => sliceOf(engine, namespace, ranks[rank], group));
  });
  return { size, groups };
}

function sliceOf(engine: KvLayout, namespace: Namespace, objects: ObjectLayout, group: number): Slice {
  const { headRange } = objects.layout.groups[group];
  const mine = engine.groups[group].headRange;
  const plans = new Map<number | undefined, TransferPlan>();
  let aside: { segment: number; read: TransferPlan; scatter: TransferPlan } | undefined;
  const slice: Slice = {
    prefix: namespace.keyPrefix(objects, group),
    bytes: objects.bytes[group],
    whole: mine.from <= headRange.from && headRange.to <= mine.to,
    plan(layer) {
      let plan = plans.get(layer);
      if (plan === undefined) {
        plan = new TransferPlan(objects.layout, engine, { group, layers: layer === undefined ? undefined : [layer] });
        plans.set(layer, plan);
      }
      return plan;
    },
    asidePlans(segment) {
      if (aside?.segment === segment) return aside;
      const beside = objectLayout(engine, objects.layout.tensorParallel, segment).layout;
      const read = new TransferPlan(objects.layout, beside, { group });
      return (aside = { segment, read, scatter: new TransferPlan(beside, engine, { group }) });
    },
  };
  // A plan that cannot be made is found out now, when its source can still be left out.
  slice.plan();
  return slice;
}

/** How a rank saves: its own objects, shared with the ranks that hold the same. */
export interface Target {
  readonly prefix: Uint8Array;
  readonly bytes: number;
  /** Ranks that hold the same, and this rank's place among them: block `p` is saved by the rank at place `p % copies`. */
  readonly copies: number;
  readonly place: number;
  plan(layer?: number): TransferPlan;
}

export function targetsOf(engine: KvLayout, namespace: Namespace): Target[] {
  const { rank, size } = engine.tensorParallel;
  const own = objectLayout(engine);
  const others = Array.from({ length: size }, (_, other) => objectLayout(engine, { rank: other, size }));
  return engine.groups.map((_, group) => {
    const prefix = namespace.keyPrefix(own, group);
    const holdsSame = (other: number) => namespace.keyPrefix(others[other], group).join() === prefix.join();
    const same = [...others.keys()].filter(holdsSame);
    const plans = new Map<number | undefined, TransferPlan>();
    return {
      prefix,
      bytes: own.bytes[group],
      copies: same.length,
      place: same.indexOf(rank),
      plan(layer) {
        let plan = plans.get(layer);
        if (plan === undefined) {
          plan = new TransferPlan(engine, own.layout, { group, layers: layer === undefined ? undefined : [layer] });
          plans.set(layer, plan);
        }
        return plan;
      },
    };
  });
}
