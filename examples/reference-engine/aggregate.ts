/** Makes one answer of what the ranks report: a request counts as sent, or received, once every rank has said so. */
import type { ConnectorOutput } from 'mooncake-ts';

export interface RankOutput {
  readonly sending: readonly string[];
  readonly receiving: readonly string[];
  readonly invalidBlockIds: readonly number[];
}

class Quorum {
  readonly #ranks: number;
  readonly #reported = new Map<string, Set<number>>();

  constructor(ranks: number) {
    this.#ranks = ranks;
  }

  /** The ids that every rank has now reported. */
  add(reports: readonly (readonly string[])[]): string[] {
    const complete: string[] = [];
    for (const [rank, ids] of reports.entries()) {
      for (const id of ids) {
        const ranks = this.#reported.get(id) ?? new Set();
        this.#reported.set(id, ranks.add(rank));
        if (ranks.size < this.#ranks) continue;
        this.#reported.delete(id);
        complete.push(id);
      }
    }
    return complete;
  }
}

export class Aggregate {
  readonly #sending: Quorum;
  readonly #receiving: Quorum;

  constructor(ranks: number) {
    this.#sending = new Quorum(ranks);
    this.#receiving = new Quorum(ranks);
  }

  /** What the ranks, in their order, reported in a step. A block that failed on one rank has failed. */
  add(outputs: readonly RankOutput[]): ConnectorOutput {
    return {
      finishedSending: this.#sending.add(outputs.map(({ sending }) => sending)),
      finishedReceiving: this.#receiving.add(outputs.map(({ receiving }) => receiving)),
      invalidBlockIds: [...new Set(outputs.flatMap(({ invalidBlockIds }) => invalidBlockIds))],
    };
  }
}
