/** `mooncake-ts top`: a live view of a master. It outlives the master: what is away is said, and looked for again. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Command } from 'commander';
import { errors, MooncakeError } from '../core/errors.js';
import { look, masterUrl, type Sample } from '../top/sample.js';
import { type View, viewOf } from '../top/view.js';
import { interruptible } from './interrupt.js';
import { printable } from './printable.js';
import { screen } from './top-screen.js';

interface Options {
  interval: number;
  once?: true;
  json?: true;
}

export function addTop(program: Command): void {
  program
    .command('top')
    .summary('a live view of a master, ours or stock')
    .description(
      'Clients, segments, objects, hit rate, evictions, and calls by method with their times, read from the HTTP port of a ' +
        'master. Without a terminal, one block of lines each time.',
    )
    .argument('[master]', 'host:port of its metrics', '127.0.0.1:9003')
    .option('--interval <seconds>', 'time between looks', interval, 1)
    .option('--once', 'one view, over one interval, and end')
    .option('--json', 'each view as one JSON line')
    .action((master: string, options: Options) => interruptible((signal) => watch(masterUrl(master), options, signal)));
}

function interval(text: string): number {
  const seconds = Number(text);
  if (text.trim() !== '' && seconds >= 0.1 && seconds <= 3600) return seconds;
  throw errors.invalidArgument('--interval', text, 'seconds, from 0.1 to 3600');
}

/** Of a master that may come back. */
const AWAY = ['ERR_PEER', 'ERR_TIMEOUT'];

async function watch(url: URL, { interval, once, json }: Options, signal: AbortSignal): Promise<void> {
  const out = json ? new Lines() : process.stdout.isTTY ? new Terminal() : new Blocks();
  let before: Sample | undefined;
  let silentSince: number | undefined;
  try {
    while (!signal.aborted) {
      const begun = performance.now();
      try {
        const sample = await look(url, signal);
        silentSince = undefined;
        if (before) {
          out.show(viewOf(url.host, before, sample));
          if (once) return;
        }
        before = sample;
      } catch (error) {
        if (!(error instanceof MooncakeError) || !AWAY.includes(error.code)) throw error;
        if (once) {
          const hint = 'is a master there, and is this its HTTP port (--metrics_port, 9003)?';
          throw new MooncakeError(error.code, `${error.message}; ${hint}`, { cause: error });
        }
        silentSince ??= begun;
        const seconds = Math.round((begun - silentSince) / 1000);
        out.say(url.host, `${error.message}; trying again${seconds > 0 ? ` for ${seconds} s` : ''}`);
      }
      const left = Math.max(0, begun + interval * 1000 - performance.now());
      await wait(left, undefined, { signal }).catch(() => {});
    }
  } finally {
    out.end();
  }
}

/** Where views go, and what is to be said instead of one. */
interface Output {
  show(view: View): void;
  say(master: string, text: string): void;
  end(): void;
}

class Lines implements Output {
  show(view: View): void {
    process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), ...view })}\n`);
  }

  say(master: string, text: string): void {
    process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), master, error: text })}\n`);
  }

  end(): void {}
}

class Blocks implements Output {
  show(view: View): void {
    const lines = screen(view, { columns: 200, rows: Number.POSITIVE_INFINITY });
    process.stdout.write(`${lines.map((line) => line.trimEnd()).join('\n')}\n\n`);
  }

  say(master: string, text: string): void {
    process.stdout.write(`mooncake master ${master}: ${printable(text)}\n\n`);
  }

  end(): void {}
}

/** The terminal's other screen, so that what was there before is there afterwards. */
class Terminal implements Output {
  #last: () => string[] = () => [];

  constructor() {
    process.stdout.write('\x1b[?1049h\x1b[?25l');
    process.stdout.on('resize', this.#draw);
  }

  show(view: View): void {
    this.#last = () => screen(view, room());
    this.#draw();
  }

  say(master: string, text: string): void {
    const line = `mooncake master ${master}: ${printable(text)}`;
    this.#last = () => [line.slice(0, room().columns)];
    this.#draw();
  }

  readonly #draw = () => {
    process.stdout.write(`\x1b[H${this.#last().join('\x1b[K\n')}\x1b[K\x1b[J`);
  };

  end(): void {
    process.stdout.off('resize', this.#draw);
    process.stdout.write('\x1b[?25h\x1b[?1049l');
  }
}

const room = () => ({ columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 });
