/**
 * The prefill engines that a decode rank reads from: asked once who their ranks are, planned once against the own ones, and
 * forgotten as soon as a connection to one of them ends. A rank that is not there any more costs one failed load, not a
 * wrong one: every message names the generation it was planned for.
 */
import type { CallLimits, Peer, Transfer } from '../transfer/transfer.js';
import { type HandoverSource, type RankInfo, unknown } from './handover.js';
import { type RankPlan, rankPlans } from './handover-move.js';
import { HandoverPlan, keeper, remoteLayout } from './handover-plan.js';
import { HANDOVER_SERVICE, readRoster } from './handover-wire.js';

/** A rank of a prefill engine that this rank reads from. */
export interface SourceRank {
  readonly info: RankInfo;
  readonly peer: Peer;
  readonly plans: readonly RankPlan[];
  /** The ranks of the own engine that read from it. */
  readonly readers: readonly number[];
}

export class PrefillEngine {
  readonly ranks: readonly RankInfo[];
  readonly #transfer: Transfer;
  readonly #own: readonly RankInfo[];
  readonly #rank: number;
  #plan: HandoverPlan | undefined;
  #sources: readonly SourceRank[] | undefined;

  /** `own` are the ranks of the decode engine, `rank` the one that reads. */
  constructor(transfer: Transfer, ranks: readonly RankInfo[], own: readonly RankInfo[], rank: number) {
    this.#transfer = transfer;
    this.ranks = ranks;
    this.#own = own;
    this.#rank = rank;
  }

  /** The ranks that this one reads from. Throws ERR_LAYOUT_MISMATCH; ERR_PEER where one of them is not there. */
  async sources(limits: CallLimits): Promise<readonly SourceRank[]> {
    if (this.#sources !== undefined) return this.#sources;
    const plan = this.#planned();
    const made = [...plan.partsOf(this.#rank)].map(async ([source, parts]) => {
      const info = this.ranks[source];
      const peer = await this.peer(info, limits);
      const layout = await remoteLayout(peer, info, limits);
      const plans = rankPlans(layout, plan.destinations[this.#rank], parts);
      return { info, peer, plans, readers: plan.readersOf(source) };
    });
    const sources = await Promise.all(made);
    this.#sources = sources;
    for (const { peer } of sources) {
      void peer.closed.then(() => {
        if (this.#sources === sources) this.#sources = undefined;
      });
    }
    return sources;
  }

  /** The ranks for which this one speaks: all that `keeper` gives it, or only those that no rank of the own engine reads. */
  keeps(which: 'all' | 'unread'): RankInfo[] {
    const plan = which === 'unread' ? this.#planned() : undefined;
    return this.ranks.filter(({ rank }) => {
      return keeper(rank, this.#own.length) === this.#rank && (plan?.readersOf(rank).length ?? 0) === 0;
    });
  }

  #planned(): HandoverPlan {
    this.#plan ??= new HandoverPlan(this.#own, this.ranks);
    return this.#plan;
  }

  peer(info: RankInfo, limits: CallLimits): Promise<Peer> {
    return this.#transfer.connect(info.address, limits);
  }
}

export class PrefillEngines {
  readonly #transfer: Transfer;
  readonly #rank: number;
  readonly #own: (signal: AbortSignal) => Promise<readonly RankInfo[]>;
  readonly #known = new Map<string, PrefillEngine>();

  /** `own` resolves to the ranks of the decode engine, `rank` among them. */
  constructor(transfer: Transfer, rank: number, own: (signal: AbortSignal) => Promise<readonly RankInfo[]>) {
    this.#transfer = transfer;
    this.#rank = rank;
    this.#own = own;
  }

  /**
   * The engine that has (or will have) the hand-over. Throws ERR_PEER where nobody is reached, ERR_NOT_FOUND where the
   * engine is not there (any more), or was restarted since the router heard of it.
   */
  async get(source: HandoverSource, limits: CallLimits & { signal: AbortSignal }): Promise<PrefillEngine> {
    const { engine: id, address, generation } = source;
    const key = `${address} ${id}`;
    const fits = (engine: PrefillEngine) => generation === undefined || engine.ranks[0].generation === generation;
    const known = this.#known.get(key);
    if (known !== undefined && fits(known)) return known;
    const [asked, peer] = await this.#ask(source, limits);
    if (!fits(asked)) throw unknown('generation', generation, `engine ${id} was restarted since`);
    // Another load may have asked at the same time: one of the answers is enough.
    const engine = this.#known.get(key);
    if (engine !== undefined && fits(engine) && engine !== known) return engine;
    this.#known.set(key, asked);
    void peer.closed.then(() => this.forget(asked));
    return asked;
  }

  /** Asks again the next time. */
  forget(engine: PrefillEngine): void {
    for (const [key, known] of this.#known) if (known === engine) this.#known.delete(key);
  }

  async #ask(
    { engine, address }: HandoverSource,
    limits: CallLimits & { signal: AbortSignal },
  ): Promise<[PrefillEngine, Peer]> {
    const peer = await this.#transfer.connect(address, limits);
    const ranks = readRoster(await peer.call(HANDOVER_SERVICE, { op: 'roster', engine }, limits));
    if (ranks[0].engine !== engine) throw unknown('engine', engine, `is ${ranks[0].engine} at ${address}`);
    const own = await this.#own(limits.signal);
    return [new PrefillEngine(this.#transfer, ranks, own, this.#rank), peer];
  }
}
