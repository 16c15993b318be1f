/**
 * A multi-turn conversation workload in text, for the demo: sessions share a system prompt; each turn sends everything
 * said so far and something new. What the engine answers becomes part of the next prompt, so prompts cannot be known
 * beforehand: a session is a thing that is asked for its next prompt.
 */
import { random } from '../replay/random.js';

export interface WorkloadOptions {
  sessions: number;
  turns: number;
  /** Characters of the system prompt, and of what a user says in a turn. */
  system: number;
  input: number;
  seed: number;
}

const WORDS = (
  'the a one this our every cache block token prefix engine prompt answer model layer head page table key value store ' +
  'reader writer night morning river market window garden letter copper harbour winter lantern orchard engineer pilot ' +
  'reads writes moves shares keeps finds loses sends holds asks tells knows brings opens closes counts follows ' +
  'quickly slowly twice again today often never early late near beyond without before after between against'
).split(' ');

/** Sentences of about `length` characters, the same for the same seed. */
function prose(length: number, seed: number): string {
  const { uniform } = random(seed);
  let text = '';
  while (text.length < length) {
    const words = Array.from(
      { length: 4 + Math.floor(uniform() * 6) },
      () => WORDS[Math.floor(uniform() * WORDS.length)],
    );
    const sentence = words.join(' ');
    text += `${sentence[0].toUpperCase()}${sentence.slice(1)}. `;
  }
  return text.slice(0, length);
}

export class Session {
  readonly id: number;
  readonly #options: WorkloadOptions;
  #text: string;
  #turn = 0;

  constructor(id: number, options: WorkloadOptions) {
    this.id = id;
    this.#options = options;
    this.#text = `${prose(options.system, options.seed)}\n`;
  }

  /** Turns that are still to come. */
  get left(): number {
    return this.#options.turns - this.#turn;
  }

  /** The next prompt: all that was said, and a new question. */
  ask(): string {
    const { seed, input } = this.#options;
    this.#turn++;
    this.#text += `User: ${prose(input, seed + 7919 * (this.id + 1) + this.#turn)}\nAssistant:`;
    return this.#text;
  }

  /** The answer, which the next prompt contains. */
  answer(text: string): void {
    this.#text += `${text}\n`;
  }
}

/** Characters of the longest prompt and its answer, where an answer has `output` characters at most. */
export function longest({ system, input, turns, seed }: WorkloadOptions, output: number): number {
  const session = new Session(0, { sessions: 1, system, input, turns, seed });
  let length = 0;
  for (const answer = 'x'.repeat(output); session.left > 0; session.answer(answer)) length = session.ask().length;
  return length + output;
}

export function sessions(options: WorkloadOptions): Session[] {
  return Array.from({ length: options.sessions }, (_, id) => new Session(id, options));
}
