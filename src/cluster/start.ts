/** Starts a cluster of reference engines with a store of its own, in this process or in one process each. */
import { DEFAULT_MODEL, decode, encode, ReferenceEngine } from 'mooncake-ts/reference-engine';
import type { HandoverMode } from '../connector/decode.js';
import { errors } from '../core/errors.js';
import type { HashOptions } from '../core/hash.js';
import { MooncakeStore } from '../store/store.js';
import { LocalTransfer } from '../transfer/local.js';
import { TcpTransfer } from '../transfer/tcp/transfer.js';
import { Cluster } from './cluster.js';
import type { Instance, InstanceRole } from './instance.js';
import { type ProcessInstance, spawnInstance } from './process.js';
import { modelOf, type ReferenceOptions, startReference } from './reference.js';
import type { Scheduling } from './router.js';

export interface StartOptions {
  prefill: number;
  decode: number;
  /** Each instance in a process of its own. */
  processes?: boolean;
  scheduling: Scheduling;
  /** How decode instances get the prompt's blocks. With `layers` both instances have a request at once. */
  handover: HandoverMode;
  /** Bytes of the store. */
  storeSize: number;
  blockSize: number;
  /** Blocks of KV cache of each instance. */
  blocks: number;
  seed: number;
  /** Other processes may attach to the store. */
  serveStore: boolean;
  /** Ends the start with ERR_ABORTED, and nothing left behind. */
  signal: AbortSignal;
}

/** The run without cache. */
export interface Baseline {
  recompute(tokens: Uint32Array, maxTokens: number, signal: AbortSignal): Promise<{ tokens: number[]; ttftMs: number }>;
  close(): Promise<void>;
}

export interface Reference {
  readonly cluster: Cluster;
  readonly model: string;
  /** Longest prompt and answer together, in tokens. */
  readonly maxTokens: number;
  readonly storeAddress: string;
  /** Process ids by instance, where instances are processes. */
  readonly pids: Readonly<Record<string, number>>;
  readonly store: MooncakeStore;
  encode(text: string): Uint32Array;
  decode(tokens: Iterable<number>): string;
  status(): Promise<unknown>;
  baseline(): Baseline;
  close(): Promise<void>;
}

/** Longest prompt and answer together, in tokens, that an instance can hold. */
export function capacity({ blocks, blockSize }: Pick<StartOptions, 'blocks' | 'blockSize'>): number {
  return Math.min(DEFAULT_MODEL.maxPositions, blocks * blockSize) - 1;
}

/** Throws ERR_ABORTED by the signal, or what kept a part from starting; what had started is closed. */
export async function startCluster(options: StartOptions): Promise<Reference> {
  const hash: HashOptions = { algorithm: 'sha256_cbor', seed: '0', blockSize: options.blockSize };
  // Whoever comes from outside this process comes by TCP.
  const outside = options.processes || options.serveStore;
  const transfer = outside ? await TcpTransfer.listen() : new LocalTransfer();
  const opened: Part[] = [transfer];
  const close = () => closeAll(opened.splice(0).reverse());
  try {
    const store = new MooncakeStore({ segments: options.storeSize, transfer });
    opened.push(store);
    if (outside) store.serve();
    const names = (role: InstanceRole, count: number): ReferenceOptions[] =>
      Array.from({ length: count }, (_, i) => ({ name: `${role}-${i}`, role, hash, ...pick(options) }));
    const wanted = [...names('prefill', options.prefill), ...names('decode', options.decode)];
    const instances: Instance[] = [];
    const pids: Record<string, number> = {};
    const gone = new Set<string>();
    opened.push({ close: () => settled(instances.map((instance) => instance.close())) });
    if (options.processes) {
      const started = await Promise.allSettled(
        wanted.map((one) => spawnInstance(one, transfer.address, options.signal)),
      );
      for (const result of started) if (result.status === 'fulfilled') instances.push(result.value);
      const failure = started.find((result) => result.status === 'rejected');
      if (failure) throw failure.reason;
      for (const { name, pid } of instances as ProcessInstance[]) pids[name] = pid;
    } else {
      for (const one of wanted) instances.push(startReference(one, transfer, store));
    }
    if (options.signal.aborted) throw errors.aborted(options.signal.reason);
    for (const instance of instances) instance.gone.then(() => gone.add(instance.name));
    const { scheduling, handover } = options;
    const cluster = new Cluster({ instances, hash, scheduling, beside: handover === 'layers' });
    return {
      cluster,
      model: 'reference',
      maxTokens: capacity(options),
      storeAddress: transfer.address,
      pids,
      store,
      encode,
      decode,
      status: async () => ({
        instances: instances.map(({ name, role }) => ({
          name,
          role,
          pid: pids[name] ?? process.pid,
          alive: !gone.has(name),
        })),
        connectors: await cluster.stats(),
        store: await store.stats(),
      }),
      baseline: () => startBaseline(options),
      close,
    };
  } catch (error) {
    // What cannot be closed has no better reason than what kept it from starting.
    await close().catch(() => {});
    throw options.signal.aborted ? errors.aborted(options.signal.reason) : error;
  }
}

const pick = ({ seed, blocks, handover }: StartOptions) => ({ seed, blocks, handover });

interface Part {
  close(): Promise<void>;
}

/** Closes one part after another, whatever the others do; then throws what the first of them threw. */
async function closeAll(parts: readonly Part[]): Promise<void> {
  const closed: Promise<void>[] = [];
  for (const part of parts) {
    const closing = (async () => part.close())();
    closed.push(closing);
    await closing.catch(() => {});
  }
  await settled(closed);
}

/** Waits for all; then throws what the first of them threw. */
async function settled(tasks: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(tasks);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** An engine that keeps nothing from one request to the next and asks nobody. */
function startBaseline({ seed, blocks, blockSize }: StartOptions): Baseline {
  const engine = new ReferenceEngine({ model: modelOf(seed), blocks, blockSize });
  return {
    async recompute(tokens, maxTokens, signal) {
      engine.resetPrefixCache();
      const { tokens: answer, ttftMs } = await engine.generate(tokens, { maxTokens, signal }).result;
      return { tokens: [...answer], ttftMs };
    },
    close: () => engine.close(),
  };
}
