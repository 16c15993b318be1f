/** Reads the arguments of calls: what is wrong is refused by name before any half sees it. */

import type { GroupBlocks, KvTransferParams } from '../connector/api.js';
import { integer, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { ExtraKeys } from '../core/hash/into.js';

export type Fields = Readonly<Record<string, unknown>>;

export const MOST = Number.MAX_SAFE_INTEGER;

export function record(argument: string, value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw errors.invalidArgument(argument, value, 'a map');
  }
  return value as Fields;
}

/** Nil: an empty one. */
export function list(argument: string, value: unknown): readonly unknown[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw errors.invalidArgument(argument, value, 'an array');
  return value;
}

export function strings(argument: string, value: unknown): string[] {
  return list(argument, value).map((one, index) => string(`${argument}[${index}]`, one));
}

/** Block ids by group. */
export function blocks(argument: string, value: unknown): GroupBlocks {
  return list(argument, value).map((group, index) => blockIds(`${argument}[${index}]`, group));
}

export function blockIds(argument: string, value: unknown): number[] {
  const ids = list(argument, value);
  const bad = ids.findIndex((id) => !Number.isInteger(id));
  if (bad >= 0) throw errors.invalidArgument(`${argument}[${bad}]`, ids[bad], 'a block id');
  return ids as number[];
}

/** What an engine gives with a request's blocks; checked entry by entry where they are hashed. */
export function extraKeys(argument: string, value: unknown): ExtraKeys | undefined {
  return value === null || value === undefined ? undefined : (list(argument, value) as ExtraKeys);
}

export function params(argument: string, value: unknown): KvTransferParams | undefined {
  return value === null || value === undefined ? undefined : (record(argument, value) as KvTransferParams);
}

export const count = (argument: string, value: unknown) => integer(argument, value, 0, MOST);
