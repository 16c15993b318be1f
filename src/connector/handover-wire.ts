/**
 * The messages of a hand-over, and how they are read: whatever comes over the wire is checked before anything is done
 * with it. One service, so that all ranks and engines of a process can share one transfer; `op`, engine, rank and
 * generation say whom a message is for.
 */
import { boolean, integer, oneOf, string } from '../core/check.js';
import { errors } from '../core/errors.js';
import type { KvRange } from '../core/layout-group.js';
import type { CallLimits, MoveReport, Peer, Verify } from '../transfer/transfer.js';
import type { GroupBlocks } from './api.js';
import type { PromptName, RankInfo } from './handover.js';

export const HANDOVER_SERVICE = 'mooncake.handover.v1';

export type Message = Readonly<Record<string, unknown>>;

/** Whom a message is for. */
export type Addressee = Pick<RankInfo, 'engine' | 'rank' | 'generation'>;

/** For which request of which engine blocks are wanted: two that name the same transfer are told apart by it. */
export interface Wanted {
  readonly transfer: string;
  readonly engine: string;
  readonly request: string;
}

/** Asks for the blocks of a hand-over: answered with a Grant when they are computed. */
export interface Take {
  readonly by: Wanted;
  readonly prompt: PromptName;
  /** The rank that reads, and all ranks of its engine that read from this one. */
  readonly reader: Addressee;
  readonly readers: readonly number[];
  /** How long the reader waits, in milliseconds. */
  readonly timeoutMs: number;
}

export interface Grant {
  /** Names this hand-over among all that this rank ever had. */
  readonly lease: number;
  readonly blocks: GroupBlocks;
}

/** A Take whose blocks the prefill writes: `tokens` of the prompt into `blocks` of the reader. */
export interface Push extends Take {
  readonly tokens: KvRange;
  readonly blocks: GroupBlocks;
  /** What the reader wants compared; undefined where it leaves that to the prefill. */
  readonly verify: Verify | undefined;
  /** Finished layers may be written before the prompt is computed. */
  readonly early: boolean;
}

/** What a push has written. */
export interface Pushed extends Pick<MoveReport, 'bytes' | 'verifiedBytes'> {
  /** Those of the bytes that were written while the prefill computed. */
  readonly earlyBytes: number;
}

export interface Done {
  readonly transfer: string;
  readonly lease: number;
  readonly rank: number;
}

/** Gives up a hand-over for all ranks of the decode. */
export interface Release {
  readonly by: Wanted;
  readonly why: string;
}

const MAX_RANKS = 1 << 16;

export function send(peer: Peer, op: string, to: Addressee, body: object, limits: CallLimits): Promise<unknown> {
  const { engine, rank, generation } = to;
  return peer.call(HANDOVER_SERVICE, { op, engine, rank, generation, ...body }, limits);
}

export function record(argument: string, value: unknown): Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw errors.invalidArgument(argument, value, 'an object');
  }
  return value as Message;
}

export function list(argument: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw errors.invalidArgument(argument, value, 'an array');
  return value;
}

/** Block ids per group; their range is the plan's to check. */
export function readBlocks(value: unknown): GroupBlocks {
  return list('blocks', value).map((group, index) => {
    const ids = list(`blocks[${index}]`, group);
    const bad = ids.findIndex((id) => !Number.isInteger(id));
    if (bad !== -1) throw errors.invalidArgument(`blocks[${index}][${bad}]`, ids[bad], 'a block id');
    return ids as number[];
  });
}

function readWanted(value: unknown): Wanted {
  const { transfer, engine, request } = record('by', value);
  return {
    transfer: string('by.transfer', transfer),
    engine: string('by.engine', engine),
    request: string('by.request', request),
  };
}

export function readTake(message: Message): Take {
  const prompt = record('prompt', message.prompt);
  const reader = record('reader', message.reader);
  const rank = integer('reader.rank', reader.rank, 0, MAX_RANKS);
  const readers = list('readers', message.readers).map((one) => integer('readers', one, 0, MAX_RANKS));
  if (!readers.includes(rank)) throw errors.invalidArgument('readers', readers, `with the reader's own rank ${rank}`);
  return {
    by: readWanted(message.by),
    prompt: {
      tokens: integer('prompt.tokens', prompt.tokens, 1, Number.MAX_SAFE_INTEGER),
      digest: string('prompt.digest', prompt.digest),
    },
    reader: {
      engine: string('reader.engine', reader.engine),
      rank,
      generation: string('reader.generation', reader.generation),
    },
    readers,
    timeoutMs: integer('timeoutMs', message.timeoutMs, 1, 0x7fff_ffff),
  };
}

export function readPush(message: Message): Push {
  const take = readTake(message);
  const tokens = record('tokens', message.tokens);
  const from = integer('tokens.from', tokens.from, 0, take.prompt.tokens);
  const to = integer('tokens.to', tokens.to, from, take.prompt.tokens);
  const early = boolean('early', message.early ?? false);
  return {
    ...take,
    tokens: { from, to },
    blocks: readBlocks(message.blocks),
    verify: readVerify(message.verify),
    early,
  };
}

/** Which bytes to compare; undefined where nothing is said. */
export function readVerify(value: unknown): Verify | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'object') return oneOf('verify', value, ['full', 'off'] as const);
  return { sampled: integer('verify.sampled', record('verify', value).sampled, 1, Number.MAX_SAFE_INTEGER) };
}

/** A push that wrote less than the `least` bytes that the reader lacks, or unverified, is not the one asked for. */
export function readPushed(answer: unknown, verify: Verify | undefined, least: number): Pushed {
  const report = record('report', answer);
  // Whoever reads from a rank lacks something of it.
  const bytes = integer('report.bytes', report.bytes, Math.max(1, least), Number.MAX_SAFE_INTEGER);
  const verified = verify === 'full' ? bytes : 0;
  return {
    bytes,
    verifiedBytes: integer('report.verifiedBytes', report.verifiedBytes, verified, bytes),
    earlyBytes: integer('report.earlyBytes', report.earlyBytes ?? 0, 0, bytes),
  };
}

export function readDone(message: Message): Done {
  return {
    transfer: string('transfer', message.transfer),
    lease: integer('lease', message.lease, 0, Number.MAX_SAFE_INTEGER),
    rank: integer('rank', message.reader, 0, MAX_RANKS),
  };
}

export function readRelease(message: Message): Release {
  return { by: readWanted(message.by), why: string('why', message.why) };
}

export function readGrant(answer: unknown): Grant {
  const { lease, blocks } = record('grant', answer);
  return { lease: integer('grant.lease', lease, 0, Number.MAX_SAFE_INTEGER), blocks: readBlocks(blocks) };
}

/** A rank's description; its layout is checked by whoever makes a KvLayout of it. */
export function readRank(value: unknown): RankInfo {
  const info = record('rank', value);
  const hash = record('rank.hash', info.hash);
  const size = integer('rank.size', info.size, 1, MAX_RANKS);
  const segments = list('rank.segments', info.segments).map((one, index) => {
    const { id, name } = record(`rank.segments[${index}]`, one);
    return {
      id: integer('rank.segments.id', id, 0, 0xffff_fffe),
      name: string('rank.segments.name', name),
    };
  });
  return {
    engine: string('rank.engine', info.engine),
    rank: integer('rank.rank', info.rank, 0, size - 1),
    size,
    generation: string('rank.generation', info.generation),
    address: string('rank.address', info.address),
    model: string('rank.model', info.model),
    hash: hash as unknown as RankInfo['hash'],
    segments,
    layout: record('rank.layout', info.layout) as unknown as RankInfo['layout'],
  };
}

/** The ranks of one engine, each once, in order. */
export function readRoster(answer: unknown): RankInfo[] {
  const ranks = list('roster', answer).map(readRank);
  for (const [index, { rank, size, engine }] of ranks.entries()) {
    if (rank !== index || size !== ranks.length || engine !== ranks[0].engine) {
      throw errors.invalidArgument(`roster[${index}]`, rank, `rank ${index} of the ${ranks.length} of one engine`);
    }
  }
  if (ranks.length === 0) throw errors.invalidArgument('roster', answer, 'at least one rank');
  return ranks;
}
