/**
 * The other end of the benchmark: engines with memory that the initiator reads and writes. A process of its own beside the
 * initiator, or `mooncake-ts bench transfer --listen` on another machine.
 */
import { TransferEngine } from '../../transfer/engine/engine.js';
import type { TargetNames } from './lanes.js';

/** Bytes behind those that are moved, never written, by which the initiator sees that it reads the target's memory. */
export const MARK_BYTES = 4096;
export const MARK = 0x5a;

export interface TargetOptions {
  /** Bytes that are moved. */
  total: number;
  host: string;
  /** Of the accelerated engine; the one in TypeScript has the next. 0: any. */
  port: number;
}

export interface Target {
  names: TargetNames;
  close(): Promise<void>;
}

export async function openTarget({ total, host, port }: TargetOptions): Promise<Target> {
  const engines: TransferEngine[] = [];
  const open = async (options: { port: number; native?: false }) => {
    const engine = await TransferEngine.create({ host, ...options });
    engines.push(engine);
    return engine;
  };
  const close = async () => {
    await Promise.all(engines.map((engine) => engine.close()));
  };
  try {
    const length = total + MARK_BYTES;
    const native = await open({ port });
    const mapped = await native.allocate(length, { name: 'mapped' });
    mapped.memory.fill(MARK);
    // The same memory, known by its address alone: peers cannot map it.
    if (native.accelerated) await native.register({ address: mapped.address, length }, { name: 'foreign' });
    const typescript = await open({ port: port === 0 ? 0 : port + 1, native: false });
    await typescript.register(mapped.memory, { name: 'foreign' });
    const names = { ...(native.accelerated && { native: native.name }), typescript: typescript.name };
    return { names, close };
  } catch (error) {
    await close();
    throw error;
  }
}
