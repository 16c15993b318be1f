/**
 * What a vLLM engine says of itself over HTTP: liveness (`/health`), the engine ids of its ranks (`/query` of its bootstrap
 * server, vLLM 0.32 mooncake_utils.py), and the settings by which it names KV blocks (`vllm:cache_config_info` of `/metrics`).
 */
import { errors } from '../core/errors.js';
import { bodyOf, type Upstream } from './upstream.js';

export interface EngineSettings {
  /** Tokens in a KV block. */
  readonly blockSize?: number;
  /** `prefix_caching_hash_algo`. */
  readonly hashAlgorithm?: string;
  /** KV blocks of its cache. */
  readonly blocks?: number;
}

const MAX_ANSWER = 8 * 2 ** 20;

async function get(upstream: Upstream, path: string, signal: AbortSignal): Promise<Buffer> {
  const { url } = upstream.address;
  const response = await upstream.call({ method: 'GET', path, signal });
  const body = await bodyOf(response, url, MAX_ANSWER);
  if (response.statusCode !== 200) throw errors.peer(url, `GET ${path} answers ${response.statusCode}`);
  return body;
}

/** @throws ERR_PEER */
export async function isHealthy(upstream: Upstream, signal: AbortSignal): Promise<void> {
  await get(upstream, '/health', signal);
}

/** Engine ids by data-parallel rank, at least one. @throws ERR_PEER, ERR_PROTOCOL */
export async function engineIds(bootstrap: Upstream, signal: AbortSignal): Promise<string[]> {
  const body = await get(bootstrap, '/query', signal);
  let ranks: unknown;
  try {
    ranks = JSON.parse(body.toString());
  } catch {
    ranks = undefined;
  }
  if (typeof ranks !== 'object' || ranks === null || Array.isArray(ranks)) {
    throw errors.protocol(`the bootstrap server ${bootstrap.address.url} does not answer /query as vLLM's does`, ranks);
  }
  const ids: string[] = [];
  for (const [rank, entry] of Object.entries(ranks)) {
    const id = (entry as { engine_id?: unknown } | null)?.engine_id;
    if (!/^\d{1,4}$/.test(rank) || typeof id !== 'string' || id === '') {
      throw errors.protocol(`the bootstrap server ${bootstrap.address.url} names no engine for rank ${rank}`, entry);
    }
    ids[Number(rank)] = id;
  }
  if (ids.length === 0 || Object.keys(ranks).length < ids.length) {
    throw errors.peer(bootstrap.address.url, 'not all ranks of the engine have joined its bootstrap server yet');
  }
  return ids;
}

/** What it knows of its KV cache; empty for engines that do not say. */
export async function engineSettings(upstream: Upstream, signal: AbortSignal): Promise<EngineSettings> {
  let text: string;
  try {
    text = (await get(upstream, '/metrics', signal)).toString();
  } catch (error) {
    if (signal.aborted) throw error;
    return {};
  }
  const labels = /^vllm:cache_config_info\{([^}]*)\}/m.exec(text)?.[1];
  if (labels === undefined) return {};
  const label = (name: string) => new RegExp(`(?:^|,)${name}="([^"]*)"`).exec(labels)?.[1];
  const count = (name: string) => (/^\d+$/.test(label(name) ?? '') ? Number(label(name)) : undefined);
  return {
    blockSize: count('block_size'),
    hashAlgorithm: label('prefix_caching_hash_algo'),
    blocks: count('num_gpu_blocks'),
  };
}

/** What two engines disagree on so that neither finds the other's blocks, in words; undefined where nothing is known. */
export function difference(one: EngineSettings, other: EngineSettings): string | undefined {
  const differs = <T>(a: T | undefined, b: T | undefined) => a !== undefined && b !== undefined && a !== b;
  if (differs(one.blockSize, other.blockSize)) return `block size ${one.blockSize}, not ${other.blockSize}`;
  if (differs(one.hashAlgorithm, other.hashAlgorithm)) {
    return `prefix caching hash algorithm ${one.hashAlgorithm}, not ${other.hashAlgorithm}`;
  }
  return undefined;
}
