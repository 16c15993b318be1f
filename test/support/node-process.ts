/** A command of ours in a process, for tests that talk to it: what it printed, and how it ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { main } from './cli.js';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class CommandProcess {
  readonly child: ChildProcess;
  /** Lines of its standard output. */
  readonly lines: string[] = [];
  stderr = '';
  readonly exited: Promise<number | null>;

  private constructor(child: ChildProcess) {
    this.child = child;
    running.add(child);
    let rest = '';
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop()!;
      this.lines.push(...parts);
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.exited = once(child, 'exit').then(([code]) => {
      running.delete(child);
      return code;
    });
  }

  /** Resolves when it has printed its first line. Throws where it ends before that. */
  static async start(args: readonly string[], env: Record<string, string> = {}): Promise<CommandProcess> {
    const options = { stdio: ['ignore', 'pipe', 'pipe'] as ('ignore' | 'pipe')[], env: { ...process.env, ...env } };
    const command = new CommandProcess(spawn(process.execPath, [main, ...args], options));
    while (command.lines.length === 0) {
      const ended = await Promise.race([
        once(command.child.stdout!, 'data').then(() => false),
        command.exited.then(() => true),
      ]);
      if (ended) throw new Error(`${args[0]} ended at once: ${command.stderr}`);
    }
    return command;
  }

  /** Its exit code. */
  end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal);
    return this.exited;
  }
}
