/** Argument checks of the engine: each names the argument and the value in an error of the package's one class. */
import { MooncakeError } from 'mooncake-ts';

export function invalid(argument: string, value: unknown, expected: string): MooncakeError {
  const shown = typeof value === 'object' || typeof value === 'function' ? typeof value : String(value).slice(0, 64);
  return new MooncakeError('ERR_INVALID_ARGUMENT', `${argument} must be ${expected}, got ${shown}`, {
    argument,
    value,
  });
}

/** An integer from `min` to `max`, both included. */
export function integer(argument: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw invalid(argument, value, `an integer from ${min} to ${max}`);
  }
  return value;
}
