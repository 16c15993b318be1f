/** Sizes as a stock configuration spells them: 1073741824, "4GB", "512 mb", "0.5G". A unit is a power of 1024. */
import { integer } from '../core/check.js';
import { errors } from '../core/errors.js';

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };
const SIZE = /^([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?$/;

/**
 * Bytes of a size: a number, or text with a unit (b, k, kb, m, mb, g, gb, t, tb in either case; GB is 2^30, as in
 * Mooncake's configuration files). A fraction of a byte is dropped.
 * @throws ERR_INVALID_ARGUMENT naming `argument`
 */
export function parseSize(argument: string, size: unknown): number {
  if (typeof size !== 'string') return integer(argument, size, 1, Number.MAX_SAFE_INTEGER);
  const match = SIZE.exec(size.trim().toLowerCase());
  const bytes = match ? Math.floor(Number(match[1]) * UNITS[match[2]]) : 0;
  if (bytes < 1 || bytes > Number.MAX_SAFE_INTEGER) {
    throw errors.invalidArgument(argument, size, 'bytes, or a size such as "4GB" or "512MB"');
  }
  return bytes;
}

/** The same for a person: "3.125 GB", in the units of parseSize. */
export function formatSize(bytes: number): string {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const unit = ['bytes', 'KB', 'MB', 'GB', 'TB'][power];
  return `${Number((bytes / 1024 ** power).toFixed(3))} ${unit}`;
}
