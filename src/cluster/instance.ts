/**
 * An engine instance as the cluster sees it: something that takes token ids and gives tokens back. Whether it runs in
 * this process (reference.ts) or in one of its own (process.ts) is all the same to the router.
 */
import type { ConnectorStats, KvTransferParams } from '../connector/api.js';

export type InstanceRole = 'prefill' | 'decode';

export interface GenerateRequest {
  id: string;
  /** Prompt token ids. */
  tokens: Uint32Array;
  maxTokens: number;
  kvTransferParams?: KvTransferParams;
}

/** Prompt tokens that an instance did not compute, by where their KV came from. */
export interface CachedTokens {
  /** Its own KV cache. */
  local: number;
  /** The store that all instances share. */
  store: number;
  /** The prefill instance of this request. */
  prefill: number;
}

export interface GenerateResult {
  tokens: number[];
  text: string;
  finishReason: 'stop' | 'length';
  cached: CachedTokens;
  /** Milliseconds from the request's arrival at the instance to its first token. */
  ttftMs: number;
  kvTransferParams: KvTransferParams | null;
}

/** Where a decode finds an instance that prefills for it. */
export interface Reached {
  readonly engineId: string;
  readonly address: string;
}

export interface Instance {
  readonly name: string;
  readonly role: InstanceRole;
  readonly reached: Reached;
  /** Resolves with the reason when the instance is gone for good. */
  readonly gone: Promise<Error>;
  generate(
    request: GenerateRequest,
    options: { signal: AbortSignal; onToken?: (token: number, text: string) => void },
  ): Promise<GenerateResult>;
  /** Counters of its connectors' halves, added up. */
  stats(): Promise<ConnectorStats>;
  close(): Promise<void>;
}
