/** Processes with engines, and waits that end. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MooncakeError, TransferEngine, type TransferEngineOptions } from 'mooncake-ts';
import * as assert from 'uvu/assert';

const file = fileURLToPath(new URL('./child.js', import.meta.url));

export const MIB = 2 ** 20;
/** Longer than every deadline in these tests: what waits so long hangs. */
const HANGS_MS = 60_000;

export interface Child {
  process: ChildProcess;
  /** Of its engine. */
  name: string;
  exited: Promise<void>;
  /** Sends a command of child.ts; its answer. Throws what it failed with. */
  ask(command: string, argument?: string): Promise<unknown>;
  /** With SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

const children = new Set<ChildProcess>();

/** To be called in test.after: whatever a failed test has left running. */
export function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
}

export interface StartOptions {
  engine?: TransferEngineOptions;
  bytes?: number;
  /** What runs it in place of Node alone: ['ip', 'netns', 'exec', 'name']. */
  within?: readonly string[];
  spawn?: SpawnOptions;
}

export async function start({ engine = {}, bytes = MIB, within = [], spawn: more }: StartOptions = {}): Promise<Child> {
  const [command, ...args] = [...within, process.execPath, file, JSON.stringify(engine), String(bytes)];
  const child = spawn(command, args, { ...more, stdio: ['pipe', 'pipe', 'inherit'] });
  children.add(child);
  const exited = new Promise<void>((resolve) => {
    child.once('close', () => {
      children.delete(child);
      resolve();
    });
    child.once('error', () => resolve());
  });
  const waiting: { resolve(value: unknown): void; reject(error: Error): void }[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const { ok, error } = JSON.parse(line);
    const { resolve, reject } = waiting.shift()!;
    if (error === undefined) resolve(ok);
    else reject(new Error(`the child: ${error}`));
  });
  const answer = () =>
    settles(
      'an answer of the child',
      new Promise<unknown>((resolve, reject) => {
        waiting.push({ resolve, reject });
        void exited.then(() => reject(new Error('the child has ended')));
      }),
    );
  child.stdin!.on('error', () => {});
  const name = (await answer()) as string;
  return {
    process: child,
    name,
    exited,
    ask(what, argument) {
      child.stdin!.write(`${JSON.stringify([what, argument])}\n`);
      return answer();
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Fails where `promise` does not settle by itself. */
export async function settles<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const hangs = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: still waiting after ${HANGS_MS} ms`)), HANGS_MS);
  });
  try {
    return await Promise.race([promise, hangs]);
  } finally {
    clearTimeout(timer);
  }
}

export async function withEngine(
  options: TransferEngineOptions,
  work: (engine: TransferEngine) => Promise<void>,
): Promise<void> {
  const engine = await TransferEngine.create(options);
  try {
    await work(engine);
  } finally {
    await settles('closing the engine', engine.close());
  }
}

/** Promises that may end before anybody looks at them. */
export function started<T>(promises: Promise<T>[]): Promise<T>[] {
  for (const promise of promises) promise.catch(() => {});
  return promises;
}

/** How each promise ended, by code; 'moved' where it resolved. All must settle by themselves. */
export async function outcomes(what: string, promises: readonly Promise<unknown>[]): Promise<string[]> {
  const settled = await settles(what, Promise.allSettled(promises));
  return settled.map((result) => {
    if (result.status === 'fulfilled') return 'moved';
    assert.instance(result.reason, MooncakeError, String(result.reason));
    return (result.reason as MooncakeError).code;
  });
}

export function only(actual: readonly string[], allowed: readonly string[], what: string): void {
  const others = actual.filter((code) => !allowed.includes(code));
  assert.equal(others, [], `${what}: ended with ${[...new Set(actual)].join(', ')}`);
}
