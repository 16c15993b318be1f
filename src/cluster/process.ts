/**
 * An instance in a process of its own. Requests and answers take Node's IPC channel, KV blocks go between the instances'
 * processes by TCP. When the process dies or falls silent, every call it had fails at once; when this process dies, it
 * ends by itself.
 */
import { type ChildProcess, fork } from 'node:child_process';
import type { ConnectorStats } from '../connector/api.js';
import { errors } from '../core/errors.js';
import type { GenerateResult, Instance, Reached } from './instance.js';
import { ALIVE_EVERY, type FromInstance, fromWire, SILENCE, type ToInstance } from './messages.js';
import type { ReferenceOptions } from './reference.js';

const START_TIMEOUT = 30_000;
const CLOSE_TIMEOUT = 5_000;
const STATS_TIMEOUT = 2_000;

interface Call {
  resolve(value: GenerateResult | ConnectorStats): void;
  reject(error: Error): void;
  onToken?: (token: number, text: string) => void;
}

export interface ProcessInstance extends Instance {
  readonly pid: number;
}

/**
 * Starts an instance; resolves when it takes requests. `store` is the address of the store it attaches to; the signal ends
 * a start, not an instance that has started.
 */
export async function spawnInstance(
  options: ReferenceOptions,
  store: string,
  signal: AbortSignal,
): Promise<ProcessInstance> {
  if (signal.aborted) throw errors.aborted(signal.reason);
  const child = fork(new URL('./child.js', import.meta.url), [], {
    serialization: 'advanced',
    // Standard output is for results.
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  const calls = new Map<number, Call>();
  let next = 0;
  const gone = new Promise<Error>((resolve) => {
    // More than one may come: of the spawn, the channel, a signal that could not be sent.
    child.on('error', (error) => resolve(errors.peer(options.name, error.message, error)));
    child.once('exit', (code, signal) => resolve(errors.peer(options.name, `its process ended (${signal ?? code})`)));
  });
  gone.then((error) => {
    for (const call of calls.values()) call.reject(error);
    calls.clear();
  });

  const heard = watch(child);
  const started = new Promise<Reached>((resolve, reject) => {
    child.on('message', (message: FromInstance) => {
      heard();
      if (message.type === 'alive') return;
      if (message.type === 'started') return resolve(message.reached);
      if (message.type === 'failed') return reject(fromWire(message.error));
      const call = calls.get(message.call);
      if (message.type === 'token') return call?.onToken?.(message.token, message.text);
      calls.delete(message.call);
      if (message.type === 'answer') call?.resolve(message.value);
      else call?.reject(fromWire(message.error));
    });
    gone.then(reject);
  });
  const kill = () => child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  send(child, { type: 'start', options, store });
  let reached: Reached;
  try {
    reached = await within(started, START_TIMEOUT, `start of ${options.name}`);
  } catch (error) {
    kill();
    throw error;
  } finally {
    signal.removeEventListener('abort', kill);
  }

  function ask<T extends GenerateResult | ConnectorStats>(
    message: (call: number) => ToInstance,
    onToken?: Call['onToken'],
  ): { call: number; answer: Promise<T> } {
    const call = next++;
    const answer = new Promise<T>((resolve, reject) => {
      if (!child.connected) return reject(errors.peer(options.name, 'its process has ended'));
      calls.set(call, { resolve: resolve as Call['resolve'], reject, onToken });
      send(child, message(call));
    });
    return { call, answer };
  }

  return {
    name: options.name,
    role: options.role,
    reached,
    pid: child.pid as number,
    gone,
    async generate(request, { signal, onToken }) {
      if (signal.aborted) throw errors.aborted(signal.reason);
      const { call, answer } = ask<GenerateResult>((call) => ({ type: 'generate', call, request }), onToken);
      const abort = () => send(child, { type: 'abort', call });
      signal.addEventListener('abort', abort, { once: true });
      try {
        return await answer;
      } finally {
        signal.removeEventListener('abort', abort);
      }
    },
    stats: () =>
      within(ask<ConnectorStats>((call) => ({ type: 'stats', call })).answer, STATS_TIMEOUT, `stats of ${options.name}`)
        // Of one that is gone or stuck nothing is known; the others' counters are worth having.
        .catch(() => ({})),
    async close() {
      send(child, { type: 'close' });
      await within(gone, CLOSE_TIMEOUT, `end of ${options.name}`).catch(() => child.kill('SIGKILL'));
      await gone;
    },
  };
}

/**
 * Kills a process that is silent for too long: one that was stopped would hold its calls for ever. The function that
 * comes back is called whenever something is heard of it.
 */
function watch(child: ChildProcess): () => void {
  // It begins with the first sign of life: a start has a deadline of its own.
  let last = Number.POSITIVE_INFINITY;
  let looked = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    // Where we were stopped ourselves, its messages are still waiting to be read.
    if (now - looked > 4 * ALIVE_EVERY) last = Math.max(last, now);
    looked = now;
    if (now - last > SILENCE) child.kill('SIGKILL');
  }, ALIVE_EVERY).unref();
  child.once('exit', () => clearInterval(timer));
  return () => {
    last = performance.now();
  };
}

function send(child: ChildProcess, message: ToInstance): void {
  // A channel that closes meanwhile is noticed by `gone`.
  if (child.connected) child.send(message, () => {});
}

function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(errors.timeout(what, ms)), ms);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}
