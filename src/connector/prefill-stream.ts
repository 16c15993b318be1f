/**
 * What one decode rank gets of a prompt, written into its memory: layer by layer while the prefill computes it where the
 * decode wants that, and what is left when it has. A piece is a range of whole blocks in one layer, or in all of them where
 * they are equally far. Pieces go one after another, so that one that is computed again (a load failed under it, the
 * request was preempted) is written after its first version, never before.
 *
 * Only groups in which a finished block stays as it is go early. A window's blocks are freed while the prefill goes on, and
 * of states only the last one matters: those go last.
 */

import type { Descriptors } from '../core/descriptors.js';
import { errors } from '../core/errors.js';
import type { KvRange } from '../core/layout-group.js';
import type { CallLimits, MoveReport } from '../transfer/transfer.js';
import type { GroupBlocks } from './api.js';
import { leastCommonMultiple, move, needsAll, type RankPlan } from './handover-move.js';
import type { Slots } from './handover-slots.js';
import type { Push, Pushed, Wanted } from './handover-wire.js';

/** A prefill under way: what of it is there to be written. */
export interface Source {
  readonly blocks: GroupBlocks;
  /** Tokens from the first on of which the layer is written. */
  ready(layer: number): number;
}

/** How a stream reaches its reader. */
export interface Reader {
  plans(limits: CallLimits): Promise<readonly RankPlan[]>;
  write(descriptors: Descriptors, limits: CallLimits): Promise<MoveReport>;
  readonly slots: Slots;
}

export interface StreamCounters {
  /** Layers that were written before the prompt was computed, once for each piece. */
  layersPushedEarly: number;
  bytesPushedEarly: number;
}

interface Part {
  readonly plan: RankPlan;
  /** Tokens that fill whole blocks on both sides. */
  readonly unit: number;
  /** Tokens written so far, by layer. */
  readonly sent: Map<number, number>;
}

interface Piece {
  readonly part: Part;
  readonly layers: readonly number[];
  readonly tokens: KvRange;
}

interface Write {
  readonly stop: AbortController;
  readonly tokens: KvRange;
  readonly ended: Promise<unknown>;
}

const OVER = errors.aborted('the push is over');
const REWOUND = errors.aborted('the blocks are computed again');

export class PushStream {
  /** Resolves when it is stopped and nothing is read or written for it any more. */
  readonly ended: Promise<void>;
  readonly #push: Push;
  readonly #reader: Reader;
  readonly #counters: StreamCounters;
  readonly #deadline: number;
  readonly #stop = new AbortController();
  #source: Source | undefined;
  #parts: readonly Part[] = [];
  /** Everything is there, the unfinished block and what is no token's too. */
  #complete = false;
  #early: Promise<void> | undefined;
  #write: Write | undefined;
  #report: Pushed = { bytes: 0, verifiedBytes: 0, earlyBytes: 0 };

  constructor(push: Push, reader: Reader, counters: StreamCounters) {
    this.#push = push;
    this.#reader = reader;
    this.#counters = counters;
    this.#deadline = performance.now() + push.timeoutMs;
    this.ended = new Promise((resolve) => {
      const end = async () => {
        await this.#early;
        await this.#write?.ended;
        resolve();
      };
      this.#stop.signal.addEventListener('abort', () => void end(), { once: true });
    });
  }

  get by(): Wanted {
    return this.#push.by;
  }

  get prompt(): Push['prompt'] {
    return this.#push.prompt;
  }

  /** Fires when it is stopped, or has failed, with the reason. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Ends it; `ended` says when that is so. */
  stop(reason: Error = OVER): void {
    this.#stop.abort(reason);
  }

  /** From now on it writes what is ready of this prefill. */
  follow(source: Source): void {
    this.#source = source;
    this.wake();
  }

  /** The blocks of the prefill are taken away: resolves when nothing of them is read. */
  leave(): Promise<void> {
    this.#source = undefined;
    return this.rewind(0);
  }

  /** More is ready. */
  wake(): void {
    if (this.#complete || this.#stop.signal.aborted) return;
    this.#early ??= this.#writeEarly().catch((error) => this.stop(error));
  }

  /**
   * Tokens from this one on are computed again: resolves when nothing of them is read. They are written again when they are
   * ready again.
   */
  async rewind(tokens: number): Promise<void> {
    const first = Math.max(tokens, this.#push.tokens.from);
    for (const { sent } of this.#parts) {
      for (const [layer, before] of sent) sent.set(layer, Math.min(before, first));
    }
    if (this.#write === undefined || this.#write.tokens.to <= tokens) return;
    this.#write.stop.abort(REWOUND);
    await this.#write.ended;
  }

  /** The prompt is computed, in these blocks: writes what is left of it. */
  async finish(blocks: GroupBlocks): Promise<Pushed> {
    this.#complete = true;
    await this.#early;
    await this.#plan();
    for (const part of this.#parts) this.#checkBlocks(part, blocks);
    for (let piece = this.#next(); piece !== undefined; piece = this.#next()) await this.#send(piece, blocks);
    this.#stop.signal.throwIfAborted();
    return this.#report;
  }

  async #writeEarly(): Promise<void> {
    try {
      await this.#plan();
      // What is left when all is there is `finish`'s.
      while (!this.#complete) {
        const piece = this.#next();
        if (piece === undefined) return;
        const bytes = await this.#send(piece, this.#source?.blocks ?? []);
        this.#counters.bytesPushedEarly += bytes;
        if (bytes > 0) this.#counters.layersPushedEarly += piece.layers.length;
        this.#report = { ...this.#report, earlyBytes: this.#report.earlyBytes + bytes };
      }
    } finally {
      this.#early = undefined;
    }
  }

  async #plan(): Promise<void> {
    const plans = await this.#reader.plans(this.#limits(this.#stop.signal));
    if (this.#parts.length > 0) return;
    const { from } = this.#push.tokens;
    this.#parts = plans.map((plan) => ({
      plan,
      unit: leastCommonMultiple(plan.source.blockSize, plan.destination.blockSize),
      sent: new Map(plan.layers.map((layer) => [layer, from])),
    }));
  }

  /** What can be written now, and is not: of all layers at once where they are equally far. */
  #next(): Piece | undefined {
    for (const part of this.#parts) {
      if (!this.#complete && !needsAll(part.plan.source)) continue;
      const layers = [...part.sent];
      const open = layers.filter(([layer, sent]) => sent < this.#limit(part, layer));
      if (open.length === 0) continue;
      const [layer, from] = open[0];
      const to = this.#limit(part, layer);
      const equal = layers.every(([other, sent]) => sent === from && this.#limit(part, other) === to);
      return { part, layers: equal ? part.plan.layers : [layer], tokens: { from, to } };
    }
    return undefined;
  }

  #limit({ unit }: Part, layer: number): number {
    const { to } = this.#push.tokens;
    if (this.#complete) return to;
    const ready = Math.min(to, this.#source?.ready(layer) ?? 0);
    return ready - (ready % unit);
  }

  /** Writes a piece; the bytes of it, 0 where it was rewound meanwhile. */
  async #send({ part, layers, tokens }: Piece, source: GroupBlocks): Promise<number> {
    const stop = new AbortController();
    const onStop = () => stop.abort(this.#stop.signal.reason);
    if (this.#stop.signal.aborted) onStop();
    this.#stop.signal.addEventListener('abort', onStop);
    const plan = layers === part.plan.layers ? part.plan : part.plan.of(layers[0]);
    const blocks = { source, destination: this.#push.blocks, tokens };
    const batch = (descriptors: Descriptors) => this.#reader.write(descriptors, this.#limits(stop.signal));
    const writing = this.#reader.slots.run(() => move([plan], blocks, batch), stop.signal);
    this.#write = { stop, tokens, ended: writing.catch(() => {}) };
    try {
      const { bytes, verifiedBytes } = await writing;
      if (stop.signal.reason === REWOUND) return 0;
      for (const layer of layers) part.sent.set(layer, tokens.to);
      const { bytes: before, verifiedBytes: verified, ...rest } = this.#report;
      this.#report = { ...rest, bytes: before + bytes, verifiedBytes: verified + verifiedBytes };
      return bytes;
    } catch (error) {
      if (stop.signal.reason === REWOUND) return 0;
      throw error;
    } finally {
      this.#write = undefined;
      this.#stop.signal.removeEventListener('abort', onStop);
    }
  }

  /** What was written from other blocks than those that the prompt is in at the end is written again. */
  #checkBlocks({ plan, sent }: Part, blocks: GroupBlocks): void {
    const [before, now] = [this.#source?.blocks[plan.group] ?? [], blocks[plan.group] ?? []];
    const changed = before.findIndex((block, index) => block !== now[index]);
    if (changed === -1) return;
    for (const [layer, tokens] of sent) {
      if (tokens > changed * plan.source.blockSize) sent.set(layer, this.#push.tokens.from);
    }
  }

  #limits(signal: AbortSignal): CallLimits {
    return { signal, timeoutMs: Math.max(1, Math.ceil(this.#deadline - performance.now())) };
  }
}
