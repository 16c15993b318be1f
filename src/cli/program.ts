/** Joins the commands; each is one file that adds itself to the program. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { MooncakeError } from '../core/errors.js';
import { addBench } from './bench.js';
import { addDoctor } from './doctor.js';
import { addHash } from './hash.js';
import { addMaster } from './master.js';
import { withTwoDashes } from './master-flags.js';
import { addMetadata } from './metadata.js';
import { addPlanned } from './planned.js';
import { printable } from './printable.js';
import { addProxy } from './proxy.js';
import { addReplay } from './replay.js';
import { addStore } from './store.js';
import { addTop } from './top.js';
import { addUp } from './up.js';
import { addVllmArgs } from './vllm-args.js';

const version = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version as string;

/** Parses `argv` and runs the command it names. Errors become one line on stderr and exit code 1. */
export async function program(argv: string[]): Promise<void> {
  const root = new Command('mooncake-ts')
    .description('The Mooncake KV-cache system for LLM inference')
    .version(version)
    .showHelpAfterError('(add --help for what is accepted)');
  addUp(root);
  addHash(root);
  addReplay(root);
  addBench(root);
  addDoctor(root);
  addMaster(root);
  addMetadata(root);
  addStore(root);
  addProxy(root);
  addTop(root);
  addVllmArgs(root);
  addPlanned(root);
  // A reader that goes away (| head) ends the program quietly, with the exit code that it has earned so far.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    process.stderr.write(`mooncake-ts: standard output cannot be written: ${error.message}\n`);
    process.exit(1);
  });
  try {
    await root.parseAsync(withTwoDashes(argv));
  } catch (error) {
    const known = error instanceof MooncakeError;
    process.stderr.write(
      `mooncake-ts: ${known ? `${printable(error.message)} [${error.code}]` : (error as Error).stack}\n`,
    );
    process.exitCode = 1;
  }
}
