/** Runs a command so that SIGINT and SIGTERM stop it at its next step instead of in the middle of a line. */
import { MooncakeError } from '../core/errors.js';

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

export async function interruptible(command: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => {
    process.exitCode = EXIT_CODES[name as keyof typeof EXIT_CODES];
    controller.abort(name);
  };
  const names = Object.keys(EXIT_CODES) as NodeJS.Signals[];
  for (const name of names) process.on(name, stop);
  try {
    await command(controller.signal);
  } catch (error) {
    const stopped = controller.signal.aborted && error instanceof MooncakeError && error.code === 'ERR_ABORTED';
    if (!stopped) throw error;
    process.stderr.write(`stopped by ${controller.signal.reason}\n`);
  } finally {
    for (const name of names) process.off(name, stop);
  }
}
