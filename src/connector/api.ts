/**
 * What an inference engine and a KV connector say to each other: vLLM's V1 connector (vllm/distributed/kv_transfer/
 * kv_connector/v1/base.py, vLLM 0.32) in TypeScript. The names are vLLM's in camel case, and so is the order of calls; what
 * Python passes as engine objects is plain data here, so that the halves may live in different processes.
 *
 * A connector has two halves. The **scheduler half** lives where requests are scheduled, one per engine; it decides what
 * to load and save and never waits: it answers from what it knows, or "ask me again" while it finds out. The **worker
 * half** lives with the KV cache, one per rank; it moves the bytes. What the scheduler half decides for a step travels as
 * metadata (plain data) with the scheduler's output to every worker half; what workers finished travels back.
 *
 *     engine's scheduler                               engine's worker, per rank
 *       onNewRequest                                     registerKvCaches            (once)
 *       getNumNewMatchedTokens  ── every waiting request
 *       updateStateAfterAlloc   ── blocks are allocated
 *       buildConnectorMeta      ── every step ────────►  bindConnectorMetadata
 *                                                        handlePreemptions
 *                                                        startLoadKv                 (before the forward pass)
 *                                                        waitForLayerLoad(layer)     (in it, before each layer)
 *                                                        saveKvLayer(layer)          (in it, after each layer)
 *                                                        waitForSave                 (after it)
 *       updateConnectorOutput   ◄──── getFinished, getBlockIdsWithLoadErrors
 *       requestFinished         ── a request ends        clearConnectorMetadata
 */

import type { ExtraKeys } from '../core/hash/into.js';
import type { Tokens } from '../core/hash/tokens.js';
import type { HashOptions } from '../core/hash.js';
import type { KvLayout } from '../core/layout.js';
import type { DeviceMemory } from '../transfer/engine/api.js';

export type KvRole = 'producer' | 'consumer' | 'both';

/** What an engine says of itself to each half of its connectors. */
export interface EngineInfo {
  /** Unique among running engines; a restarted engine takes a new one. */
  readonly engineId: string;
  /** What its KV depends on beside the tokens: weights, revision, adapter configuration. Part of every key. */
  readonly model: string;
  readonly role: KvRole;
  /** The block hashes by which it names blocks: algorithm, seed, tokens per block. All engines that share must agree. */
  readonly hash: HashOptions;
  /** Ranks of this engine. Default 1. */
  readonly tensorParallelSize?: number;
}

/** A rank's KV cache. */
export interface KvCaches {
  /** The memories it lies in, of this process or of a GPU. */
  readonly memories: readonly (Uint8Array | DeviceMemory)[];
  /** Makes the layout, given the segment number of each memory. */
  layout(segments: readonly number[]): KvLayout;
}

/** Parameters that a router passes between a prefill and a decode request; vLLM's `kv_transfer_params`. */
export interface KvTransferParams {
  /** This request only prefills: keep its blocks for the decode that will ask for them. */
  do_remote_decode?: boolean;
  /** The prompt's KV is (or will be) at another engine: load it from there. */
  do_remote_prefill?: boolean;
  /** Names the hand-over on both sides. */
  transfer_id?: string;
  /** The prefill engine, and where its connector is reached. */
  remote_engine_id?: string;
  remote_bootstrap_addr?: string;
  /** Anything else that a router adds is kept and passed on. */
  [other: string]: unknown;
}

/** A request, as far as connectors care. The engine keeps the object alive and current while the request lives. */
export interface KvRequest {
  readonly requestId: string;
  /** Tokens of the prompt. */
  readonly numPromptTokens: number;
  /** Prompt and output so far. */
  readonly tokens: Tokens;
  /** One entry per full block, or undefined: cache salt, LoRA, … (hashing.md). */
  readonly extraKeys?: ExtraKeys;
  readonly kvTransferParams?: KvTransferParams;
}

/** Block ids of a request, one list per group of the layout. */
export type GroupBlocks = readonly (readonly number[])[];

/** A request that starts (or resumes after preemption) in this step: all its block ids so far. */
export interface NewRequestData {
  readonly requestId: string;
  readonly blockIds: GroupBlocks;
  readonly numComputedTokens: number;
  readonly resumed?: boolean;
}

/** A request that goes on in this step: only the block ids that are new. */
export interface CachedRequestData {
  readonly requestId: string;
  readonly newBlockIds: GroupBlocks;
  readonly numComputedTokens: number;
}

export interface SchedulerOutput {
  readonly newRequests: readonly NewRequestData[];
  readonly cachedRequests: readonly CachedRequestData[];
  /** Tokens that each request computes in this step, by request id; a prompt may come in chunks. */
  readonly numScheduledTokens: Readonly<Record<string, number>>;
  /** Requests that ended since the last step, aborted ones included. */
  readonly finishedRequestIds: readonly string[];
  /** Requests whose blocks were taken from them since the last step. */
  readonly preemptedRequestIds: readonly string[];
}

/** What a step's workers must do for this connector. Plain data; only the connector that made it reads it. */
export type ConnectorMetadata = unknown;

/** What workers finished, over all ranks: a request counts once every rank has reported it. */
export interface ConnectorOutput {
  /** Requests whose blocks need not be kept any longer: what had to leave them has left. */
  readonly finishedSending: readonly string[];
  /** Requests whose asynchronous load has ended, well or badly (see invalidBlockIds). */
  readonly finishedReceiving: readonly string[];
  /** Blocks (ids of group 0 and others alike) whose load failed: the engine recomputes from the first of them. */
  readonly invalidBlockIds: readonly number[];
}

/** Counters of a half, by name; numbers add up over halves. */
export type ConnectorStats = Readonly<Record<string, number>>;

export interface SchedulerConnector {
  onNewRequest(request: KvRequest): void;

  /**
   * How many tokens beyond `numComputedTokens` (a multiple of the block size unless it is the whole prompt) this connector
   * can bring, and whether it does so while other requests run. `null`: not known yet, ask again in a later step.
   */
  getNumNewMatchedTokens(request: KvRequest, numComputedTokens: number): [tokens: number | null, async: boolean];

  /** The engine has allocated the request's blocks and will take `numExternalTokens` tokens from the connector (maybe 0). */
  updateStateAfterAlloc(request: KvRequest, blockIds: GroupBlocks, numExternalTokens: number): void;

  /** The work of the step that is about to run; called once a step, also when nothing is scheduled. */
  buildConnectorMeta(output: SchedulerOutput): ConnectorMetadata;

  updateConnectorOutput(output: ConnectorOutput): void;

  /**
   * The request has ended or was aborted. True: its blocks must be kept until it appears in `finishedSending`. The
   * parameters go back to the router with the request's result.
   */
  requestFinished(request: KvRequest, blockIds: GroupBlocks): [delayFree: boolean, params: KvTransferParams | null];

  /** There is work that needs steps although no request runs. */
  hasPendingWork(): boolean;

  /** What the workers of every rank said of themselves (getHandshakeMetadata), by rank; before the first request. */
  setHandshakeMetadata(metadata: readonly unknown[]): void;

  stats(): ConnectorStats;

  /** Ends everything under way and closes what was opened. */
  shutdown(): Promise<void>;
}

/** Blocks of a group that a rank has put into a store, or has found there when it was to. */
export interface SavedBlocks {
  readonly group: number;
  /** Ranks that save a part of each such block: it is there when as many have said so. */
  readonly ranks: number;
  /** Their hashes, one after another. */
  readonly hashes: Uint8Array;
}

export interface WorkerConnector {
  registerKvCaches(caches: KvCaches): void;

  /** Plain data for the scheduler half: where this rank is reached, its layout. Null where it needs none. */
  getHandshakeMetadata(): unknown;

  bindConnectorMetadata(metadata: ConnectorMetadata): void;
  clearConnectorMetadata(): void;

  /** Resolves when no transfer touches the blocks of the preempted requests any more. */
  handlePreemptions(requestIds: readonly string[]): Promise<void>;

  /** Starts the loads of the step; synchronous ones are waited for by layer. */
  startLoadKv(): void;
  /** Resolves when `layer` (global index) may be read: loaded, or reported by getBlockIdsWithLoadErrors. */
  waitForLayerLoad(layer: number): Promise<void>;
  /** The forward pass has written `layer` of the step's tokens. */
  saveKvLayer(layer: number): void;
  /** Resolves when the step's blocks may be changed again. */
  waitForSave(): Promise<void>;

  /** Blocks that were saved since the last call. Only of connectors that save, where they were asked to keep count. */
  takeSaved?(): SavedBlocks[];

  /** Resolves when nothing is being saved that the steps so far were to save. Only of connectors that save. */
  savesEnded?(): Promise<void>;

  /** Requests whose sending or receiving has ended on this rank since the last call; `finished` ended since then. */
  getFinished(finished: readonly string[]): { sending: string[]; receiving: string[] };
  /** Blocks whose load failed since the last call. */
  getBlockIdsWithLoadErrors(): number[];

  stats(): ConnectorStats;
  shutdown(): Promise<void>;
}

/** A connector: makes its halves. `rank` is the tensor-parallel rank. */
export interface KvConnector {
  readonly name: string;
  createScheduler(engine: EngineInfo): SchedulerConnector;
  createWorker(engine: EngineInfo, rank: number): WorkerConnector;
}
