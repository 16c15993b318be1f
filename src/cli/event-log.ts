/**
 * Events on standard output, one line each: `<time> <level> <text>`, or a JSON object with the same. An event that repeats must not
 * fill a disk: of each kind so many are written in a window, and at its end one line says how many were not.
 */
import { oneOf } from '../core/check.js';
import { printable } from './printable.js';

/** Least urgent last. */
export const LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type Level = (typeof LEVELS)[number];

const WINDOW_MS = 10_000;
const PER_WINDOW = 20;

export interface LoggedEvent {
  readonly what: string;
}

interface Window {
  written: number;
  left: number;
}

export class EventLog {
  readonly #json: boolean;
  readonly #least: number;
  /** By kind of event, since the window began. */
  readonly #windows = new Map<string, Window>();
  #ending?: NodeJS.Timeout;

  /** Throws ERR_INVALID_ARGUMENT for a level that is none. */
  constructor({ json = false, level = 'info' }: { json?: boolean; level?: string }) {
    this.#json = json;
    this.#least = LEVELS.indexOf(oneOf('--log-level', level, LEVELS));
  }

  /** `text` says the event to people; control characters in it are written visibly. */
  event(level: Level, event: LoggedEvent, text: string): void {
    if (LEVELS.indexOf(level) > this.#least) return;
    let window = this.#windows.get(event.what);
    if (!window) this.#windows.set(event.what, (window = { written: 0, left: 0 }));
    this.#ending ??= setTimeout(() => this.#end(), WINDOW_MS).unref();
    if (window.written >= PER_WINDOW) {
      window.left++;
      return;
    }
    window.written++;
    this.#write(level, event, text);
  }

  /** Written whatever the level: who started the process must learn its ports. */
  say(event: LoggedEvent, text: string): void {
    this.#write('info', event, text);
  }

  /** Says what the last window has left out. */
  close(): void {
    this.#end();
  }

  #end(): void {
    clearTimeout(this.#ending);
    this.#ending = undefined;
    for (const [of, { left }] of this.#windows) {
      if (left > 0) this.#write('warn', { what: 'events-left-out', of, count: left }, `${left} more events ${of}`);
    }
    this.#windows.clear();
  }

  #write(level: Level, event: object, text: string): void {
    const time = new Date().toISOString();
    const line = this.#json
      ? JSON.stringify({ time, level, ...event })
      : `${time} ${level.padEnd(5)} ${printable(text)}`;
    process.stdout.write(`${line}\n`);
  }
}
