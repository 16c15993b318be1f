/** What is typed behind a flag, as the value that it means. Each throws ERR_INVALID_ARGUMENT naming the flag. */
import { errors } from '../core/errors.js';

/** A parser of whole numbers from `min` to `max`, both included. */
export function whole(flag: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw errors.invalidArgument(flag, text, `an integer from ${min} to ${max}`);
  };
}

/** A parser of ports; 0 is any free one. */
export const port = (flag: string) => whole(flag, 0, 65_535);
