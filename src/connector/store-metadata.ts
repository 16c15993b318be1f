/**
 * What the halves of the store connector say to each other: plain data, so that they may live in different processes.
 */
import type { Fingerprint } from './namespace.js';

/** What is checked before a namespace is used (store-attach.ts). */
export interface NamespaceClaim {
  /** As the user set it; null where nobody did, which means strict, but not beside objects that stock wrote. */
  readonly integrity: 'strict' | 'stock' | null;
  readonly model: string;
  readonly companionKey: string;
  readonly fingerprint: Fingerprint;
  /** What goes before `@HASH` in the keys that vLLM's own connector gives the blocks of group 0. */
  readonly stockPrefix: Uint8Array;
}

/** What a worker says of itself (its handshake). */
export interface StoreHandshake {
  readonly connector: 'MooncakeStoreConnector';
  readonly version: 1;
  readonly rank: number;
  readonly claim: NamespaceClaim;
  /** Of each group: what a prefix of it needs. */
  readonly groups: readonly StoreGroup[];
  /** Where this rank's bytes can come from: its own objects first, then those of deployments of another size. */
  readonly sources: readonly StoreSource[];
}

export interface StoreGroup {
  readonly kind: 'full' | 'sliding' | 'mla' | 'state';
  /** Tokens per block. */
  readonly blockSize: number;
  readonly window: number | null;
  /** The id that stands for "no block here". */
  readonly nullBlock: number | null;
  /** Bytes of this rank's object. */
  readonly objectBytes: number;
}

export interface StoreSource {
  /** Tensor-parallel ranks of the deployment that wrote the objects. */
  readonly size: number;
  /** By group: key prefixes (UTF-8) of the objects of a block that this rank needs, all of them. */
  readonly prefixes: readonly (readonly Uint8Array[])[];
}

/** Blocks of one group of one request, in the order of their tokens. */
export interface StoreBlocks {
  readonly requestId: string;
  readonly group: number;
  /** Which block of the request each is, counted in blocks of the group. */
  readonly positions: readonly number[];
  readonly blockIds: readonly number[];
  /** Their hashes, one after another. */
  readonly hashes: Uint8Array;
}

export interface LoadBlocks extends StoreBlocks {
  /** By block: which of the worker's sources has it. */
  readonly sources: readonly number[];
}

export interface LoadJob {
  readonly requestId: string;
  readonly async: boolean;
  readonly groups: readonly LoadBlocks[];
}

export interface SaveJob extends StoreBlocks {
  /** Of the blocks, how many were full before this step; the rest become full in it, layer by layer. */
  readonly ready: number;
}

/** The work of a step. */
export interface StoreStep {
  readonly loads: readonly LoadJob[];
  readonly saves: readonly SaveJob[];
  /** Loads under way that nobody waits for any more. */
  readonly aborted: readonly string[];
  /** Asynchronous loads that were given up before any worker heard of them; the engine expects to hear of their end. */
  readonly cancelled: readonly string[];
  /** Requests whose blocks are kept until every save of them has left. */
  readonly release: readonly string[];
}

export const NO_WORK: StoreStep = { loads: [], saves: [], aborted: [], cancelled: [], release: [] };
