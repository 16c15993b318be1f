/** What doctor found about one thing, for people and for programs. */
export type State =
  /** There, and used. */
  | 'ok'
  /** A fact, or something that is not there and need not be. */
  | 'note'
  /** Everything works, but slower or with less than this machine could; `mend` says what to do. */
  | 'degraded';

export interface Finding {
  /** "huge pages". */
  topic: string;
  state: State;
  /** What was found, or what failed and how. */
  found: string;
  /** What follows for the user. */
  means?: string;
  /** What to do about it: a command, where one does it. */
  mend?: string;
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

/** 8388608 as "8 MiB". */
export function size(bytes: number): string {
  const unit = Math.min(UNITS.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** unit).toFixed(1))} ${UNITS[unit]}`;
}

/** "1 core", "2 cores". */
export const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? '' : 's'}`;
