/**
 * The hand-over of a prompt's KV blocks from a prefill engine to a decode engine: the words that both sides use.
 *
 *     prefill engine                                      decode engine
 *       scheduler half: offers ──► worker half            worker half ◄── loads: scheduler half
 *                                  (PrefillRank)   ◄────  (DecodeRank)
 *                                                  roster   which ranks has this engine, where is their KV
 *                                                  take     wait until it is computed; lock it for this reader
 *                                                  (bytes)  one-sided read, or `push`: the prefill writes, at
 *                                                           once or layer by layer while it still computes
 *                                                  done     was it held for me until now?
 *                                                  release  nobody of this engine wants it (any more)
 *
 * A hand-over is named by the router's transfer id, which proves nothing. So every message also names the engine, the rank
 * and the rank's generation; the prompt is compared by a digest; and a reader counts its bytes as loaded only when `done` is
 * answered with the lease that `take` gave: then the blocks were held, unchanged, from before the read until after it.
 */

import type { BlockHashes } from '../core/block-hashes.js';
import { MooncakeError, show } from '../core/errors.js';
import { blockHashes, type HashOptions } from '../core/hash.js';
import { toHex } from '../core/hex.js';
import type { KvLayoutOptions } from '../core/layout.js';
import type { GroupBlocks, KvRequest, KvTransferParams } from './api.js';

/** A rank of an engine, as it describes itself to its own scheduler and to the ranks of other engines. */
export interface RankInfo {
  readonly engine: string;
  readonly rank: number;
  /** Ranks of the engine. */
  readonly size: number;
  /** Of this worker half: one that is made anew has another. 16 hex digits. */
  readonly generation: string;
  /** Where its transfer is reached. */
  readonly address: string;
  readonly model: string;
  readonly hash: Readonly<Required<HashOptions>>;
  /** Its segments, by the numbers that `layout` uses, and the names under which peers open them. */
  readonly segments: readonly { readonly id: number; readonly name: string }[];
  readonly layout: KvLayoutOptions;
}

/** The prompt of a hand-over: both sides must mean the same one. */
export interface PromptName {
  readonly tokens: number;
  /** 64 hex digits; see promptName. */
  readonly digest: string;
}

/** What of a request's KV a prefill rank keeps for a decode. */
export interface Offer {
  readonly request: string;
  readonly transfer: string;
  readonly prompt: PromptName;
  readonly blocks: GroupBlocks;
}

/** A step of a prefill that a decode may follow: tokens `from` up to `to` are computed in it. */
export interface PrefillStep {
  readonly transfer: string;
  readonly request: string;
  /** Where it begins, or begins anew: what it computes, and that `blocks` are all that it has. */
  readonly prompt?: PromptName;
  /** Blocks that are new in this step. */
  readonly blocks: GroupBlocks;
  readonly from: number;
  readonly to: number;
}

/** A prefill that ended before it had computed its prompt. */
export interface Withdrawal {
  readonly transfer: string;
  /** The request, where the engine keeps its blocks until nothing of them is on its way to a decode. */
  readonly held?: string;
}

/** What a decode rank has to load: tokens `from` up to `to` into its own blocks. */
export interface Load {
  readonly request: string;
  readonly source: HandoverSource;
  readonly prompt: PromptName;
  readonly from: number;
  readonly to: number;
  readonly blocks: GroupBlocks;
}

/** Where a hand-over waits. */
export interface HandoverSource {
  readonly transfer: string;
  readonly engine: string;
  /** The address of any rank of the engine. */
  readonly address: string;
  /** Generation of the engine's first rank, where the router passed on what the prefill said. */
  readonly generation?: string;
}

/** What the scheduler half tells the worker halves in a step. */
export interface HandoverMetadata {
  /** All ranks of this engine; once. */
  readonly roster?: readonly RankInfo[];
  readonly steps: readonly PrefillStep[];
  readonly offers: readonly Offer[];
  readonly withdrawn: readonly Withdrawal[];
  readonly loads: readonly Load[];
  /** Loads whose request was aborted. */
  readonly cancelled: readonly string[];
  /** Hand-overs that this decode engine does not need: everything was there, or the request was aborted early. */
  readonly unwanted: readonly { readonly request: string; readonly source: HandoverSource }[];
}

/** A hand-over, engine or generation that the answering side does not know, or knows no more. */
export function unknown(argument: string, value: unknown, why: string): MooncakeError {
  return new MooncakeError('ERR_NOT_FOUND', `${argument} ${show(value)}: ${why}`, { argument, value });
}

/** Where the decode request's parameters say that its prompt's KV is; null where they are incomplete. */
export function handoverSource(params: KvTransferParams | undefined): HandoverSource | null {
  const { transfer_id, remote_engine_id, remote_bootstrap_addr, remote_generation } = params ?? {};
  const given = (value: unknown): value is string => typeof value === 'string' && value !== '';
  if (!given(transfer_id) || !given(remote_engine_id) || !given(remote_bootstrap_addr)) return null;
  const generation = given(remote_generation) ? remote_generation : undefined;
  return { transfer: transfer_id, engine: remote_engine_id, address: remote_bootstrap_addr, generation };
}

/** Every hash option, with the defaults that hashing has. */
export function hashOptions({ blockSize, algorithm = 'sha256_cbor', seed = null }: HashOptions): Required<HashOptions> {
  return { blockSize, algorithm, seed };
}

/**
 * Names a request's prompt: SHA-256 over the chain of its full blocks and their extra keys (`sha256_cbor`, whatever the
 * engines hash with, as it is defined for every key), and over the tokens behind the last full block.
 */
export function promptName(request: KvRequest, blockSize: number): PromptName {
  const { tokens: all, numPromptTokens, extraKeys } = request;
  const prompt = all.length === numPromptTokens ? all : all.slice(0, numPromptTokens);
  const rest = prompt.length % blockSize;
  const last = (hashes: BlockHashes) => (hashes.length > 0 ? hashes.at(hashes.length - 1) : undefined);
  const full = last(
    blockHashes(prompt, { blockSize, extraKeys: extraKeys?.slice(0, (prompt.length - rest) / blockSize) }),
  );
  const tail = prompt.slice(prompt.length - rest);
  const digest = rest === 0 ? full : last(blockHashes(tail, { blockSize: rest, parent: full }));
  return { tokens: prompt.length, digest: toHex(digest ?? new Uint8Array()) };
}

/** 64 random bits in hex. */
export function newGeneration(): string {
  return crypto.getRandomValues(new BigUint64Array(1))[0].toString(16).padStart(16, '0');
}
