/** Requests of the harness's engine. */
import type { ExtraKeys, KvRequest, KvTransferParams } from 'mooncake-ts';
import { Prefix } from './cache.js';

export interface RequestOptions {
  id?: string;
  tokens: readonly number[];
  /** Tokens to generate. Default 1. */
  maxTokens?: number;
  extraKeys?: ExtraKeys;
  /** The model's KV depends on it too, as with an adapter: goes with extra keys. */
  adapter?: string;
  kvTransferParams?: KvTransferParams;
}

/** waiting: not begun. remote: waits for an asynchronous load. */
export type RequestState = 'waiting' | 'remote' | 'running' | 'finished';

export class HarnessRequest implements KvRequest {
  readonly requestId: string;
  readonly tokens: number[];
  readonly numPromptTokens: number;
  readonly extraKeys?: ExtraKeys;
  readonly kvTransferParams?: KvTransferParams;
  readonly maxTokens: number;
  readonly prefix: Prefix;
  state: RequestState = 'waiting';
  aborted = false;
  blocks: number[] = [];
  /** Tokens whose KV is there (or on its way, while remote). */
  computed = 0;
  /** Steps may have been lost to it: says so in NewRequestData. */
  preempted = false;
  /** Tokens that came from requests at work here, and from the connector; those lost to failed loads are not counted. */
  localTokens = 0;
  externalTokens = 0;
  /** Tokens computed by forward passes, repeated ones counted again. */
  forwardTokens = 0;
  /** Blocks that connectors reported as failed. */
  failedBlocks = 0;
  /** What requestFinished gave the router. */
  params: KvTransferParams | null = null;
  /** A remote load has ended; the next step takes the request up. */
  received = false;

  constructor(options: RequestOptions, id: string) {
    this.requestId = id;
    this.tokens = [...options.tokens];
    this.numPromptTokens = options.tokens.length;
    this.extraKeys = options.extraKeys;
    this.kvTransferParams = options.kvTransferParams;
    this.maxTokens = options.maxTokens ?? 1;
    this.prefix = new Prefix(options.adapter);
  }

  get outputTokens(): number[] {
    return this.tokens.slice(this.numPromptTokens);
  }
}

/** Tokens that differ by seed from the first one on. */
export function tokensOf(seed: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => (Math.imul(seed + 1, 2654435761) + Math.imul(i, 40503)) >>> 16);
}
