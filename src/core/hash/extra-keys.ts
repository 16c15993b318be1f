/**
 * The extra keys that vLLM adds to the blocks of a request (generate_block_hash_extra_keys of kv_cache_utils.py): what
 * makes equal tokens with another adapter, image, tenant or embedding another block. Tagged, in this order:
 *
 *   ("lora", name, path)          every block
 *   ("mm", identifier, offset)    each multimodal item in the block; offset from the block's start, negative where the
 *                                 item began before it
 *   ("cache_salt", salt)          the first block of the request
 *   ("prompt_embeds", sha256)     every block of a request with embeddings
 */
import { integer, options as optionsObject, string } from '../check.js';
import { errors } from '../errors.js';
import type { ExtraKeys } from './into.js';
import { blockSizeOf, hashBytes } from './plan.js';
import type { ExtraKey } from './values.js';

export interface MultimodalItem {
  /** vLLM's identifier of the item: its hash, or the uuid that the request gave. */
  identifier: string;
  /** First placeholder token and their number, in tokens of the prompt. */
  offset: number;
  length: number;
}

export interface ExtraKeysRequest {
  /** Tokens of the prompt; only full blocks get an entry. */
  tokens: number;
  blockSize: number;
  /** First token of the first block wanted, a multiple of blockSize. Default 0. */
  start?: number;
  lora?: { name: string; path: string } | null;
  /** Sorted by offset. Items that overlap (audio within a video) are taken as vLLM takes them. */
  multimodal?: readonly MultimodalItem[] | null;
  /** An empty salt is no salt, as in vLLM. */
  cacheSalt?: string | null;
  /** SHA-256 of each block's embeddings as raw tensor bytes, from block 0 of the prompt on: 32 bytes or hex. */
  promptEmbeds?: readonly (Uint8Array | string)[] | null;
}

const MAX_TOKENS = 2 ** 31 - 1;
/** Entries of one answer: above any prompt, below what an array may take. */
const MAX_BLOCKS = 2 ** 24;

function checkItems(items: unknown): readonly MultimodalItem[] {
  if (!Array.isArray(items)) throw errors.invalidArgument('multimodal', items, 'an array of items');
  let before = 0;
  for (const [i, item] of items.entries()) {
    const name = `multimodal[${i}]`;
    const { identifier, offset, length } = optionsObject(name, item as MultimodalItem);
    string(`${name}.identifier`, identifier);
    before = integer(`${name}.offset`, offset, before, MAX_TOKENS);
    integer(`${name}.length`, length, 0, MAX_TOKENS);
  }
  return items;
}

/** The extra keys of each full block, null for a block without any: the `extraKeys` of blockHashes. */
export function extraKeys(request: ExtraKeysRequest): ExtraKeys {
  const {
    tokens,
    blockSize: size,
    start = 0,
    lora,
    multimodal,
    cacheSalt,
    promptEmbeds,
  } = optionsObject('request', request);
  const blockSize = blockSizeOf(size);
  integer('tokens', tokens, 0, MAX_TOKENS);
  integer('start', start, 0, MAX_TOKENS);
  if (start % blockSize !== 0) throw errors.invalidArgument('start', start, `a multiple of blockSize ${blockSize}`);
  if (tokens - start >= (MAX_BLOCKS + 1) * blockSize) {
    throw errors.invalidArgument('tokens', tokens, `at most ${MAX_BLOCKS} blocks`);
  }
  const items = checkItems(multimodal ?? []);
  // vLLM looks at the last item first: from its end on it names none, not even one that began before and is longer.
  const last = items.at(-1);
  const itemsEnd = last ? last.offset + last.length : 0;
  const every: ExtraKey[] = [];
  if (lora !== undefined && lora !== null) {
    const { name, path } = optionsObject('lora', lora);
    every.push(['lora', string('lora.name', name), string('lora.path', path)]);
  }
  const salt = string('cacheSalt', cacheSalt ?? '');
  if (promptEmbeds !== undefined && promptEmbeds !== null && !Array.isArray(promptEmbeds)) {
    throw errors.invalidArgument('promptEmbeds', promptEmbeds, 'an array of digests, one per block');
  }
  // One list for all blocks that have nothing of their own: it is encoded once.
  const common = every.length > 0 ? every : null;
  const keys: (ExtraKey[] | null)[] = [];
  let item = 0;
  for (let from = start; from + blockSize <= tokens; from += blockSize) {
    const own: ExtraKey[] = [];
    const to = from + blockSize;
    for (; from < itemsEnd && item < items.length && items[item].offset < to; item++) {
      const { identifier, offset, length } = items[item];
      if (offset + length <= from) continue;
      own.push(['mm', identifier, offset - from]);
      // It goes on in the next block.
      if (offset + length > to) break;
    }
    if (from === 0 && salt !== '') own.push(['cache_salt', salt]);
    if (promptEmbeds) {
      const block = from / blockSize;
      own.push(['prompt_embeds', hashBytes(`promptEmbeds[${block}]`, promptEmbeds[block], 32)]);
    }
    keys.push(own.length > 0 ? [...every, ...own] : common);
  }
  return keys;
}
