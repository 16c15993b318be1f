/** What both kinds of sessions have: their run, their end, and what went wrong without anybody waiting for it. */
import { MooncakeError } from '../core/errors.js';
import type { Run } from './envelope.js';

/** An error on its way to an engine. */
export interface Failure {
  readonly code: string;
  readonly message: string;
}

/** Failures kept for an engine that does not ask for them, at most. */
const MAX_FAILURES = 64;
const MAX_TEXT = 2000;

export function failureOf(error: unknown): Failure {
  const known = error instanceof MooncakeError;
  const text = error instanceof Error ? error.message : String(error);
  return { code: known ? error.code : 'ERR_WORKER', message: text.slice(0, MAX_TEXT) };
}

export abstract class Session {
  #failures: Failure[] = [];

  constructor(
    readonly id: number,
    readonly run: Run,
    /** The engine's process, by the kernel's word. */
    readonly pid: number,
  ) {}

  /** Keeps an error for the engine; the same one is told once. */
  report(error: unknown): void {
    const failure = failureOf(error);
    const known = this.#failures.some(({ code, message }) => code === failure.code && message === failure.message);
    if (!known && this.#failures.length < MAX_FAILURES) this.#failures.push(failure);
  }

  protected takeFailures(): Failure[] {
    const failures = this.#failures;
    this.#failures = [];
    return failures;
  }
}
