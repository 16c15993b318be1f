/**
 * The schedule: every cell is asked once to warm up, then all cells in turn, round after round, so that what disturbs the
 * machine disturbs all of them, and every other round backwards, so that none profits from what it follows; a cell's figure
 * is the median of its batches.
 */
import { errors, MooncakeError } from '../../core/errors.js';
import type { Driver, Question } from './driver.js';

export interface Cell {
  driver: Driver;
  question: Question;
  /** Of each batch, nanoseconds. */
  times: number[];
  /** The share of the bytes whose checksum was compared. */
  verifiedShare: number;
  /** Why there is no figure. */
  why?: string;
}

export interface Schedule {
  rounds: number;
  /** A round's batches of one cell together, milliseconds: what is slower gets smaller batches, down to one block. */
  longestMs: number;
  /** Work that is done once a round among the cells, for instance a peer that is no driver. */
  between?: (() => Promise<void>)[];
  signal?: AbortSignal;
  onProgress?: (done: number) => void;
}

const ASK_MS = 60_000;
const SHORTEST_MS = 10;
const MAX_RUNS = 16;

export function cell(driver: Driver, question: Question): Cell {
  return { driver, question: { ...question }, times: [], verifiedShare: 0 };
}

/** Fills the cells. Those that fail keep the reason; throws ERR_ABORTED alone. */
export async function measure(cells: readonly Cell[], schedule: Schedule): Promise<void> {
  const { rounds, between = [], signal, onProgress } = schedule;
  const steps = (rounds + 1) * (cells.length + between.length);
  let step = 0;
  const done = () => {
    if (signal?.aborted) throw errors.aborted(signal.reason);
    onProgress?.(++step / steps);
  };
  for (const one of cells) {
    await warmUp(one, schedule);
    done();
  }
  const backwards = [...cells].reverse();
  for (let round = 0; round < rounds; round++) {
    for (const one of round % 2 === 0 ? cells : backwards) {
      await ask(one);
      done();
    }
    for (const work of between) {
      await work();
      done();
    }
  }
}

/** One batch, which shows how many fit. */
async function warmUp(one: Cell, { longestMs }: Schedule): Promise<void> {
  const { question } = one;
  const { runs } = question;
  question.runs = 1;
  await ask(one);
  const [first] = one.times.splice(0);
  question.runs = runs;
  if (first === undefined || question.single) return;
  const taken = first / 1e6;
  if (taken > longestMs) question.count = Math.max(1, Math.floor((question.count * longestMs) / taken));
  question.runs = Math.max(runs, Math.min(MAX_RUNS, Math.floor(SHORTEST_MS / taken)));
}

async function ask(one: Cell): Promise<void> {
  if (one.why !== undefined) return;
  try {
    const { nanoseconds, verifiedShare = 0 } = await one.driver.ask(one.question, ASK_MS);
    one.times.push(...nanoseconds);
    one.verifiedShare = verifiedShare;
  } catch (error) {
    if (!(error instanceof MooncakeError)) throw error;
    if (error.code !== 'ERR_ABORTED') one.why = error.message;
  }
}

/** The value below which the share `q` of the values is. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

/** Bytes a nanosecond, which is GB/s; undefined where nothing was measured. */
export function rate({ times, question }: Cell): number | undefined {
  if (times.length === 0) return undefined;
  return (question.block * (question.single ? 1 : question.count)) / quantile(times, 0.5);
}
