/**
 * Push mode: a decode rank asks, this prefill rank writes into the decode's memory. The decode's layout is asked for over
 * the connection that the request came by, once per connection and rank. As long as a write is under way the hand-over
 * stays, so that no block is reused under it, and a release waits for it, so that the decode may reuse its own.
 */
import { KvLayout } from '../core/layout.js';
import { transferSources } from '../core/layout-sources.js';
import type { CallLimits, Peer, RequestContext, Verify } from '../transfer/transfer.js';
import type { RankInfo } from './handover.js';
import { move, type RankPlan, rankPlans } from './handover-move.js';
import { checkSame, remoteLayout } from './handover-plan.js';
import type { Slots } from './handover-slots.js';
import { type Addressee, type Message, type Push, type Pushed, readPush, readRank, send } from './handover-wire.js';
import type { Handover, PrefillRank } from './prefill.js';

/** This rank, as pushing needs it. */
export interface PushSource {
  readonly info: RankInfo;
  readonly layout: KvLayout;
  roster(signal: AbortSignal): Promise<readonly RankInfo[]>;
}

export interface PushOptions {
  readonly verify: Verify | undefined;
  readonly slots: Slots;
}

export class PrefillPush {
  readonly #self: PushSource;
  readonly #prefill: PrefillRank;
  readonly #options: PushOptions;
  readonly #plans = new WeakMap<Peer, Map<string, RankPlan[]>>();

  constructor(self: PushSource, prefill: PrefillRank, options: PushOptions) {
    this.#self = self;
    this.#prefill = prefill;
    this.#options = options;
  }

  /** Answers a `push`: waits for the prefill as `take` does, writes, and is done with this reader. */
  async answer(message: Message, { peer, signal }: RequestContext): Promise<Pushed> {
    const push = readPush(message);
    const handover = await this.#prefill.take(push, peer, signal);
    const writing = this.#write(handover, push, peer, signal);
    handover.writes.add(writing);
    try {
      const report = await writing;
      this.#prefill.done({ transfer: push.by.transfer, lease: handover.lease, rank: push.reader.rank });
      return report;
    } finally {
      handover.writes.delete(writing);
    }
  }

  async #write(handover: Handover, push: Push, peer: Peer, given: AbortSignal): Promise<Pushed> {
    const stop = new AbortController();
    const onAbort = (event: Event) => stop.abort((event.target as AbortSignal).reason);
    const signals = [given, handover.stop.signal];
    for (const signal of signals) {
      if (signal.aborted) stop.abort(signal.reason);
      signal.addEventListener('abort', onAbort);
    }
    const limits = { signal: stop.signal, timeoutMs: push.timeoutMs };
    try {
      const plans = await this.#plansFor(peer, push.reader, limits);
      const blocks = { source: handover.offer.blocks, destination: push.blocks, tokens: push.tokens };
      const { slots } = this.#options;
      const verify = push.verify ?? this.#options.verify;
      const write = () => move(plans, blocks, (descriptors) => peer.write(descriptors, { ...limits, verify }));
      return await slots.run(write, stop.signal);
    } catch (error) {
      throw handover.stop.signal.aborted ? handover.stop.signal.reason : error;
    } finally {
      for (const signal of signals) signal.removeEventListener('abort', onAbort);
    }
  }

  async #plansFor(peer: Peer, reader: Addressee, limits: CallLimits): Promise<RankPlan[]> {
    const key = `${reader.engine} ${reader.rank} ${reader.generation}`;
    const known = this.#plans.get(peer)?.get(key);
    if (known !== undefined) return known;
    const made = await this.#plan(peer, reader, limits);
    const plans = this.#plans.get(peer) ?? new Map<string, RankPlan[]>();
    this.#plans.set(peer, plans.set(key, made));
    return made;
  }

  async #plan(peer: Peer, reader: Addressee, limits: CallLimits): Promise<RankPlan[]> {
    const info = readRank(await send(peer, 'rank', reader, {}, limits));
    checkSame(this.#self.info, info);
    const ranks = await this.#self.roster(limits.signal as AbortSignal);
    const sources = ranks.map(({ layout }) => new KvLayout(layout));
    const parts = transferSources(new KvLayout(info.layout), sources);
    const own = parts.filter(({ source }) => source === this.#self.info.rank);
    return rankPlans(this.#self.layout, await remoteLayout(peer, info, limits), own);
  }
}
