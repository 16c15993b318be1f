/**
 * Multi-turn workloads: sessions that share a system prompt and send, turn after turn, all that was said before and
 * something new. `conversations` gives the turns in order of time; `generateTrace` writes them as a trace.
 */
import { options as checkOptions, integer } from '../core/check.js';
import { errors } from '../core/errors.js';
import { random } from './random.js';
import { type Trace, TraceBuilder } from './trace.js';

export interface Conversations {
  sessions: number;
  /** Turns of a session. */
  turns: number;
  /** Tokens of the system prompt, the same in every session. */
  system: number;
  /** Tokens of a session's first input, of the input of each later turn, and of each answer. */
  first: number;
  input: number;
  output: number;
  /** Mean seconds between the starts of sessions, exponentially distributed. */
  startGap: number;
  /** Milliseconds for each token of an answer. */
  tokenTime: number;
  /** Median seconds between an answer and the next turn, log-normal with `delaySigma`. */
  delay: number;
  delaySigma: number;
  /** Turns and lengths vary from session to session and turn to turn, with the given values as means. */
  varied: boolean;
  seed: number;
}

export interface Turn {
  /** Milliseconds. */
  time: number;
  session: number;
  /** Tokens of the prompt: the system prompt and everything said so far in this session. */
  prompt: number;
  /** Tokens of the answer, which are part of the next prompt. */
  output: number;
}

/** All turns of all sessions in order of time. */
export function conversations(options: Conversations): Turn[] {
  const { uniform, exponential, logNormal } = random(options.seed);
  const length = (mean: number) => (options.varied ? Math.max(1, Math.round(exponential(mean))) : mean);
  const all: Turn[] = [];
  let start = 0;
  for (let session = 0; session < options.sessions; session++) {
    const turns = options.varied ? 1 + Math.floor(uniform() * (2 * options.turns - 1)) : options.turns;
    let time = start;
    let prompt = options.system + length(options.first);
    for (let turn = 0; turn < turns; turn++) {
      const output = length(options.output);
      all.push({ time, session, prompt, output });
      prompt += output + length(options.input);
      time += output * options.tokenTime + 1000 * logNormal(options.delay, options.delaySigma);
    }
    start += 1000 * exponential(options.startGap);
  }
  return all.sort((a, b) => a.time - b.time);
}

export interface WorkloadOptions {
  sessions?: number;
  turns?: number;
  system?: number;
  first?: number;
  input?: number;
  output?: number;
  seed?: number;
}

/** What `mooncake-ts replay` generates when no trace is named; about 2,500 requests. */
export const DEFAULT_WORKLOAD = {
  sessions: 300,
  turns: 8,
  system: 2048,
  first: 3000,
  input: 500,
  output: 350,
  seed: 1,
} satisfies WorkloadOptions;

/** Tokens of a trace block, as in the published traces. */
export const TRACE_BLOCK = 512;

/** Blocks of all prompts of a generated trace: seconds of work that no signal can stop. */
const MAX_BLOCKS = 2 ** 24;

/** From, to. */
export const WORKLOAD_LIMITS: Readonly<Record<keyof WorkloadOptions, readonly [min: number, max: number]>> = {
  sessions: [1, 1e6],
  turns: [1, 1e4],
  system: [0, 1e7],
  first: [0, 1e7],
  input: [0, 1e6],
  output: [0, 1e6],
  seed: [0, 0xffffffff],
};

/**
 * A generated multi-turn trace of 512-token blocks. As in the published traces the last block of a prompt is often not
 * full: it is a block of its own, and only full blocks come back in the next turn.
 *
 * @throws ERR_INVALID_ARGUMENT naming the option that is out of range
 */
export function generateTrace(options?: WorkloadOptions): Trace {
  const workload = { ...DEFAULT_WORKLOAD, ...checkOptions('options', options) };
  for (const name of Object.keys(WORKLOAD_LIMITS) as (keyof typeof WORKLOAD_LIMITS)[]) {
    integer(name, workload[name], ...WORKLOAD_LIMITS[name]);
  }
  const { sessions, turns: meanTurns, first, input, output } = workload;
  const meanPrompt = workload.system + first + meanTurns * (input + output);
  if (sessions * meanTurns * (1 + meanPrompt / TRACE_BLOCK) > MAX_BLOCKS) {
    throw errors.invalidArgument('sessions', sessions, `fewer: at most ${MAX_BLOCKS} blocks in all prompts`);
  }
  const builder = new TraceBuilder();
  const systemBlocks = Math.floor(workload.system / TRACE_BLOCK);
  const system = Array.from({ length: systemBlocks }, (_, block) => block);
  let nextId = systemBlocks;
  const known: number[][] = [];
  const turns = conversations({
    ...workload,
    startGap: 2,
    tokenTime: 20,
    delay: 15,
    delaySigma: 1.2,
    varied: true,
  });
  turns.forEach(({ time, session, prompt, output }, at) => {
    const full = (known[session] ??= [...system]);
    while (full.length < Math.floor(prompt / TRACE_BLOCK)) full.push(nextId++);
    const ids = prompt % TRACE_BLOCK === 0 ? full : [...full, nextId++];
    builder.add({ timestamp: Math.round(time), input_length: prompt, output_length: output, hash_ids: ids }, at + 1);
  });
  return builder.build();
}
