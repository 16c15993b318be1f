/**
 * Push: a decode rank asks, this prefill rank writes into the decode's memory. The decode's layout is asked for over the
 * connection that the request came by, once per connection and rank. As long as a write is under way the hand-over
 * stays, so that no block is reused under it, and a release waits for it, so that the decode may reuse its own.
 */
import type { Descriptors } from '../core/descriptors.js';
import { KvLayout } from '../core/layout.js';
import { transferSources } from '../core/layout-sources.js';
import type { CallLimits, Peer, RequestContext, Verify } from '../transfer/transfer.js';
import type { RankInfo } from './handover.js';
import { type RankPlan, rankPlans } from './handover-move.js';
import { checkSame, remoteLayout } from './handover-plan.js';
import type { Slots } from './handover-slots.js';
import { type Addressee, type Message, type Pushed, readPush, readRank, send } from './handover-wire.js';
import type { PrefillRank } from './prefill.js';
import type { PrefillLayers } from './prefill-layers.js';
import { PushStream } from './prefill-stream.js';

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
  readonly #layers: PrefillLayers;
  readonly #options: PushOptions;
  readonly #plans = new WeakMap<Peer, Map<string, RankPlan[]>>();

  constructor(self: PushSource, prefill: PrefillRank, layers: PrefillLayers, options: PushOptions) {
    this.#self = self;
    this.#prefill = prefill;
    this.#layers = layers;
    this.#options = options;
  }

  /** Answers a `push`: writes what the reader wants early, waits for the prefill as `take` does, and writes the rest. */
  async answer(message: Message, { peer, signal }: RequestContext): Promise<Pushed> {
    const push = readPush(message);
    const { slots } = this.#options;
    const verify = push.verify ?? this.#options.verify;
    const reader = {
      plans: (limits: CallLimits) => this.#plansFor(peer, push.reader, limits),
      write: (descriptors: Descriptors, limits: CallLimits) => peer.write(descriptors, { ...limits, verify }),
      slots,
    };
    const stream = new PushStream(push, reader, this.#layers.counters);
    const stop = (event: Event) => stream.stop((event.target as AbortSignal).reason);
    const stoppedBy = (cause: AbortSignal) => {
      if (cause.aborted) stream.stop(cause.reason);
      cause.addEventListener('abort', stop, { once: true });
    };
    stoppedBy(signal);
    try {
      const taken = this.#prefill.take(push, peer, stream.signal);
      if (push.early) this.#layers.join(stream);
      const handover = await taken;
      handover.writes.add(stream.ended);
      stoppedBy(handover.stop.signal);
      const report = await stream.finish(handover.offer.blocks);
      this.#prefill.done({ transfer: push.by.transfer, lease: handover.lease, rank: push.reader.rank });
      return report;
    } catch (error) {
      throw stream.signal.aborted ? stream.signal.reason : error;
    } finally {
      signal.removeEventListener('abort', stop);
      stream.stop();
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
