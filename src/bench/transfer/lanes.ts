/** The ways that blocks can take between our two processes, each an engine that may use nothing else. */
import type { EnginePeer, PeerSegment, TransferEngineApi, TransferEngineOptions } from '../../transfer/engine/api.js';
import { StockView } from './stock-view.js';

export interface LaneSpec {
  readonly name: string;
  /** For people. */
  readonly title: string;
  readonly kind: 'memory' | 'peer';
  /** Needs the native accelerator. */
  readonly native: boolean;
  /** Whether it can compare checksums. */
  readonly verifies: boolean;
  /** The target's segment: its memory can be mapped, or is known by address alone. */
  readonly segment: 'mapped' | 'foreign';
  readonly options: TransferEngineOptions;
  /** Where the other end may be another machine. */
  readonly network: boolean;
}

const lane = (name: string, title: string, rest: Partial<LaneSpec>): LaneSpec => ({
  name,
  title,
  kind: 'peer',
  native: true,
  verifies: true,
  segment: 'mapped',
  options: {},
  network: false,
  ...rest,
});

export const LANES: readonly LaneSpec[] = [
  lane('local', 'within one process', { kind: 'memory', verifies: false }),
  lane('shm', 'shared memory, mapped', { options: { transports: ['shm'] } }),
  lane('process_vm', 'shared memory by process_vm_readv and writev', {
    segment: 'foreign',
    options: { transports: ['shm'] },
  }),
  lane('tcp', 'TCP, own framing', { options: { transports: ['tcp'] }, network: true }),
  lane('mooncake-tcp', "TCP, Mooncake's wire v2", { options: { transports: ['tcp'] }, network: true, verifies: false }),
  lane('typescript', 'TCP in TypeScript, without the accelerator', {
    native: false,
    options: { native: false },
    network: true,
    verifies: false,
    segment: 'foreign',
  }),
];

/** Where the target's engines are found: the accelerated one, if there is one, and that in TypeScript. */
export interface TargetNames {
  native?: string;
  typescript: string;
}

export interface OpenLane {
  readonly spec: LaneSpec;
  readonly engine: TransferEngineApi;
  readonly peer: EnginePeer;
  /** Our segment. */
  readonly ours: number;
  readonly theirs: PeerSegment;
  close(): Promise<void>;
}

export type CreateEngine = (options: TransferEngineOptions) => Promise<TransferEngineApi>;

/** Opens a lane to the target. `register` gives the engine our memory and returns its segment. */
export async function openLane(
  spec: LaneSpec,
  target: TargetNames,
  create: CreateEngine,
  register: (engine: TransferEngineApi) => Promise<number>,
): Promise<OpenLane> {
  const name = spec.native ? target.native : target.typescript;
  if (name === undefined) throw new Error('the target has no accelerator');
  const view = spec.verifies ? undefined : await StockView.listen();
  const engine = await create({ ...spec.options, ...(view && { metadata: view.url }) });
  const close = async () => {
    await engine.close();
    await view?.close();
  };
  try {
    const ours = await register(engine);
    const peer = await engine.open(name);
    // Mooncake's descriptors do not name them; there all are the same memory.
    const theirs = peer.segments.find(({ name }) => name === spec.segment) ?? (view && peer.segments[0]);
    if (theirs === undefined) throw new Error(`${name} offers no segment "${spec.segment}"`);
    return { spec, engine, peer, ours, theirs, close };
  } catch (error) {
    await close();
    throw error;
  }
}
