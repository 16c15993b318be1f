/** Commands that are promised and not there yet: a clear answer instead of "unknown command". */
import type { Command } from 'commander';
import { errors } from '../core/errors.js';

const PLANNED = ['indexer'];

export function addPlanned(root: Command): void {
  for (const name of PLANNED) {
    root
      .command(name, { hidden: true })
      .allowUnknownOption()
      .allowExcessArguments()
      .helpOption(false)
      .action(() => {
        throw errors.notSupported(`mooncake-ts ${name}`, 'see `mooncake-ts --help` for what this version has');
      });
  }
}
