/**
 * Prefills under way, and the decodes that follow them: what a step has written of a layer goes to the decode while the
 * prefill computes the next (PushStream). A decode may come before its prefill begins, or in the middle of it.
 *
 * The engine does not wait for the network. What it may change while a write still reads it is fenced where it would: a
 * preempted request in `preempted`, blocks that are computed again (a load had failed) in `fenced`, the blocks of an
 * aborted request by the writes that `end` names, which the engine keeps them for.
 */
import type { GroupBlocks } from './api.js';
import type { PrefillStep, PromptName } from './handover.js';
import type { Wanted } from './handover-wire.js';
import type { PushStream, Source, StreamCounters } from './prefill-stream.js';
import { isSame } from './prefill-waiting.js';

/** A prefill under way on this rank. */
class Progress implements Source {
  readonly request: string;
  readonly prompt: PromptName;
  readonly blocks: number[][] = [];
  readonly #ready = new Map<number, number>();
  #from = 0;
  #to = 0;

  constructor(request: string, prompt: PromptName) {
    this.request = request;
    this.prompt = prompt;
  }

  /** A step begins. What it computes again is not ready any more; false where there is no such thing. */
  step(blocks: GroupBlocks, from: number, to: number): boolean {
    for (const [group, ids] of blocks.entries()) (this.blocks[group] ??= []).push(...ids);
    [this.#from, this.#to] = [from, to];
    let again = false;
    for (const [layer, ready] of this.#ready) {
      if (ready <= from) continue;
      again = true;
      this.#ready.set(layer, from);
    }
    return again;
  }

  /** The step has written a layer. False where it left one out before: what is missing there is only known at the end. */
  written(layer: number, begins: boolean): boolean {
    if (!begins && this.ready(layer) < this.#from) return false;
    this.#ready.set(layer, this.#to);
    return true;
  }

  ready(layer: number): number {
    return this.#ready.get(layer) ?? 0;
  }
}

export class PrefillLayers {
  readonly counters: StreamCounters = { layersPushedEarly: 0, bytesPushedEarly: 0 };
  /** By transfer. */
  readonly #prefills = new Map<string, Progress>();
  /** By transfer, in the order in which they came. */
  readonly #streams = new Map<string, Set<PushStream>>();
  /** Prefills of the step that runs, and whether they begin in it. */
  readonly #step = new Map<string, boolean>();
  #fences: Promise<unknown>[] = [];

  /** A decode rank wants its layers early. */
  join(stream: PushStream): void {
    const { transfer } = stream.by;
    const streams = this.#streams.get(transfer) ?? new Set();
    this.#streams.set(transfer, streams.add(stream));
    void stream.ended.then(() => {
      streams.delete(stream);
      if (streams.size === 0 && this.#streams.get(transfer) === streams) this.#streams.delete(transfer);
    });
    this.#follow(stream);
  }

  /** A step begins. */
  begin(steps: readonly PrefillStep[]): void {
    this.#step.clear();
    for (const { transfer, request, prompt, blocks, from, to } of steps) {
      if (prompt !== undefined) this.#prefills.set(transfer, new Progress(request, prompt));
      const progress = this.#prefills.get(transfer);
      if (progress === undefined) continue;
      this.#step.set(transfer, prompt !== undefined);
      const again = progress.step(blocks, from, to);
      for (const stream of this.#of(transfer)) {
        if (again) this.#fences.push(stream.rewind(from));
        if (prompt !== undefined) this.#follow(stream);
      }
    }
  }

  /** Resolves when the step may write: nothing reads what it computes again. */
  async fenced(): Promise<void> {
    if (this.#fences.length === 0) return;
    await Promise.all(this.#fences);
    this.#fences = [];
  }

  /** The step has written a layer. */
  written(layer: number): void {
    for (const [transfer, begins] of this.#step) {
      if (!this.#prefills.get(transfer)?.written(layer, begins)) continue;
      for (const stream of this.#of(transfer)) stream.wake();
    }
  }

  /** Nothing more is written in this step. */
  stepped(): void {
    this.#step.clear();
  }

  /** The requests lose their blocks, and may begin again: resolves when nothing of them is read. */
  async preempted(requests: readonly string[]): Promise<void> {
    const left: Promise<void>[] = [];
    for (const [transfer, { request }] of this.#prefills) {
      if (!requests.includes(request)) continue;
      this.#prefills.delete(transfer);
      for (const stream of this.#of(transfer)) left.push(stream.leave());
    }
    await Promise.all(left);
  }

  /** The prefill has ended, well or not. What is still being written of it. */
  end(transfer: string): Promise<void>[] {
    this.#prefills.delete(transfer);
    return this.#of(transfer).map(({ ended }) => ended);
  }

  /** Stops what is written for a decode. Resolves when nothing is. */
  async stop(by: Wanted, why: Error): Promise<void> {
    await stopAll(
      this.#of(by.transfer).filter((stream) => isSame(by, stream.by)),
      why,
    );
  }

  async close(why: Error): Promise<void> {
    await stopAll(
      [...this.#streams.values()].flatMap((streams) => [...streams]),
      why,
    );
  }

  /** One decode has the hand-over, in all its ranks; another one of the same transfer id waits, to be refused. */
  #follow(stream: PushStream): void {
    const { transfer } = stream.by;
    const progress = this.#prefills.get(transfer);
    if (progress === undefined || !isSame(stream.by, this.#of(transfer)[0].by)) return;
    if (progress.prompt.digest === stream.prompt.digest) stream.follow(progress);
  }

  #of(transfer: string): PushStream[] {
    return [...(this.#streams.get(transfer) ?? [])];
  }
}

async function stopAll(streams: readonly PushStream[], why: Error): Promise<void> {
  for (const stream of streams) stream.stop(why);
  await Promise.all(streams.map(({ ended }) => ended));
}
