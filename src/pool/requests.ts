/** Calls as pieces of work: what of a call is bulk, what it costs, and where it may be cut. The tasks undo this. */
import type { HashDone, HashRest, MatchRest, PlanRest, PromptRest } from '../../workers/tasks.js';
import { BlockHashes } from '../core/block-hashes.js';
import { options as plainOptions } from '../core/check.js';
import { errors } from '../core/errors.js';
import { hashPlan } from '../core/hash/plan.js';
import { checkTokens, isTokens } from '../core/hash/tokens.js';
import type { HashOptions, Prompt, Tokens } from '../core/hash.js';
import { KvLayout } from '../core/layout.js';
import type { PlanOptions, TransferBlocks } from '../core/layout-plan.js';
import type { Hashes, KeyWidth } from '../core/prefix-keys.js';
import type { Piece } from './call.js';
import type { Payload, TypedArray } from './wire.js';

/** Blocks of a piece: at most a few milliseconds of hashing. */
const PIECE_BLOCKS = 8192;
const PIECE_TOKENS = 1 << 18;
/** SHA-256 hashes so many prompts at once: a piece of nine would take as long as one of twelve. */
const CHAINS = 4;

/** Numbers as a typed array where they are one or fit one; the core refuses the others by name. */
function typed(numbers: Tokens): TypedArray | undefined {
  if (!Array.isArray(numbers)) return numbers as TypedArray;
  for (const number of numbers) if (typeof number !== 'number' || number >>> 0 !== number) return undefined;
  return Uint32Array.from(numbers);
}

/** A prompt on its way: its tokens as they will travel, and whether the caller's list has them alone. */
export interface ListedPrompt extends Prompt {
  array: TypedArray | undefined;
  bare: boolean;
}

/** A call's only prompt. */
export function onePrompt({ tokens, parent, extraKeys }: Prompt): ListedPrompt {
  checkTokens('tokens', tokens);
  const bare = (parent ?? extraKeys ?? null) === null;
  return { tokens, parent, extraKeys, array: typed(tokens), bare };
}

export function promptList(prompts: readonly (Tokens | Prompt)[]): ListedPrompt[] {
  if (!Array.isArray(prompts)) throw errors.invalidArgument('prompts', prompts, 'an array of prompts');
  return Array.from(prompts, (item, i) => {
    if (isTokens(item)) return { tokens: item, array: typed(item), bare: true };
    const { tokens, parent, extraKeys } = plainOptions(`prompts[${i}]`, item as Prompt);
    checkTokens(`prompts[${i}].tokens`, tokens);
    return { tokens, parent, extraKeys, array: typed(tokens), bare: false };
  });
}

/**
 * Prompts in pieces of at most PIECE_BLOCKS blocks and PIECE_TOKENS tokens, but at least one prompt, and of whole fours
 * where more follow: to be hashed, and with `match` to be matched too.
 */
export function hashPieces(
  prompts: readonly ListedPrompt[],
  options: HashOptions,
  list: boolean,
  match?: { group: number; hashes: boolean },
): Piece[] {
  const { algorithm, blockSize, seed } = hashPlan(options);
  const shared = { algorithm, blockSize, seed };
  const kind = match ? 'hashAndMatch' : 'hash';
  const most = Math.min(PIECE_BLOCKS, Math.floor(PIECE_TOKENS / blockSize));
  const pieces: Piece[] = [];
  const blocks = prompts.map(({ tokens }) => Math.floor(tokens.length / blockSize));
  for (let from = 0; from < prompts.length; ) {
    let [to, units] = [from, 0];
    while (to < prompts.length && (to === from || units + blocks[to] <= most)) units += blocks[to++];
    const whole = to - ((to - from) % CHAINS);
    if (to < prompts.length && whole > from) while (to > whole) units -= blocks[--to];
    const { arrays, rest } = hashPayload(prompts.slice(from, to), shared, list ? from : undefined);
    pieces.push({ kind, costKind: `${kind}:${algorithm}`, units, arrays, rest: { ...rest, ...match } });
    from = to;
  }
  return pieces;
}

function hashPayload(prompts: readonly ListedPrompt[], options: HashOptions, first: number | undefined) {
  const arrays: TypedArray[] = [];
  let bare = true;
  for (const prompt of prompts) {
    if (prompt.array) arrays.push(prompt.array);
    bare &&= prompt.bare && prompt.array !== undefined;
  }
  const rest: HashRest = { options, first };
  if (!bare) {
    rest.prompts = prompts.map(({ tokens, array, parent, extraKeys, bare }): PromptRest => {
      return { parent, extraKeys, bare, ...(array ? undefined : { tokens: tokens as readonly number[] }) };
    });
  }
  return { arrays, rest };
}

/** Chains of hashes in pieces; an error names the chain by `argument`. */
export function matchPieces(chains: readonly Hashes[], keyWidth: KeyWidth, group: number | undefined): Piece[] {
  const pieces: Piece[] = [];
  let piece: Piece | undefined;
  for (const chain of chains) {
    const units = chain instanceof Uint8Array ? chain.length / keyWidth : chain.length;
    if (!piece || piece.units + units > PIECE_BLOCKS) {
      const rest: MatchRest = { widths: [], group };
      pieces.push((piece = { kind: 'match', costKind: 'match', units: 0, arrays: [], rest }));
    }
    const run = 'width' in chain;
    (piece.rest as MatchRest).widths.push(run ? chain.width : 0);
    piece.arrays.push(run ? chain.bytes : chain);
    piece.units += units;
  }
  return pieces;
}

/** The matches that tasks packed into one array for each piece. */
export function* unpackMatches(done: readonly Payload[]): Iterable<{ matched: number; rows: Uint32Array }> {
  for (const { arrays } of done) {
    const packed = arrays[0] as Uint32Array;
    for (let at = 0; at < packed.length; at += 2 + packed[at + 1]) {
      yield { matched: packed[at], rows: packed.subarray(at + 2, at + 2 + packed[at + 1]) };
    }
  }
}

/** What came back for the pieces, as the hashes of each prompt: views of one array for each piece. */
export function hashResults(done: readonly Payload[]): BlockHashes[] {
  return done.flatMap(({ arrays, rest }) => {
    const { width, counts } = rest as HashDone;
    const bytes = arrays[0] as Uint8Array;
    let at = 0;
    return counts.map((count) => new BlockHashes(bytes.subarray(at, (at += count * width)), width));
  });
}

const layoutTexts = new WeakMap<KvLayout, string>();

/** A layout as text, written once: a worker recognizes the layouts it has seen by it. */
function layoutText(argument: string, layout: KvLayout): string {
  if (!(layout instanceof KvLayout)) throw errors.invalidArgument(argument, layout, 'a KvLayout');
  let text = layoutTexts.get(layout);
  if (text === undefined) layoutTexts.set(layout, (text = JSON.stringify(layout)));
  return text;
}

/** A unit is a block of a tensor of a layer: about a descriptor. */
export function planPiece(source: KvLayout, destination: KvLayout, options: PlanOptions & TransferBlocks): Piece {
  const { sourceBlocks, destinationBlocks, tokens, ...plan } = options;
  const lists = { sourceBlocks, destinationBlocks };
  const rest: PlanRest = {
    source: layoutText('source', source),
    destination: layoutText('destination', destination),
    plan,
    blocks: { tokens },
    bulk: [],
  };
  const piece: Piece = { kind: 'plan', costKind: 'plan', units: 0, arrays: [], rest };
  for (const name of ['sourceBlocks', 'destinationBlocks'] as const) {
    const list = lists[name];
    const array = isTokens(list) ? typed(list) : undefined;
    if (array) {
      rest.bulk.push(name);
      piece.arrays.push(array);
    } else rest.blocks[name] = list;
  }
  let tensors = 0;
  for (const group of source.groups) tensors += group.layers.length * group.tensors.size;
  piece.units = (piece.arrays[0]?.length ?? 0) * tensors;
  return piece;
}
