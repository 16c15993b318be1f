/** One engine in a process of its own, to be killed: it steps on and does what it is told over IPC. */
import { type KvTransferParams, TcpTransfer } from 'mooncake-ts';
import type { HarnessRequest } from './harness.js';
import { GatedTransfer, type Step } from './pd-gate.js';
import { counters, type SideOptions, side } from './pd-pair.js';

export interface ChildOptions extends Omit<SideOptions, 'transfer' | 'connector'> {
  mode: 'pull' | 'push' | 'layers';
  abortTimeoutMs?: number;
  /** Nothing gets past this step. */
  shut?: Step;
}

export interface AddCommand {
  add: { tokens: number[]; maxTokens?: number; kvTransferParams: KvTransferParams };
}

export type Report =
  | { ready: { engineId: string; address: string } }
  | { finished: { params: KvTransferParams | null; externalTokens: number; corruptions: string[] } }
  | { stopped: Step }
  | { idle: { freeBlocks: number; blocks: number; counters: Record<string, number>; failures: string[] } };

const report = (message: Report) => process.send!(message);

async function run({ mode, abortTimeoutMs, shut, ...options }: ChildOptions): Promise<void> {
  const ranks = options.tensorParallelSize ?? 1;
  const inner = await Promise.all(Array.from({ length: ranks }, () => TcpTransfer.listen()));
  const gates = inner.map((transfer) => new GatedTransfer(transfer));
  if (shut) for (const gate of gates) gate.shut(shut);
  const own = side({ ...options, transfer: (rank) => gates[rank], connector: { mode, abortTimeoutMs } });
  const { engine } = own;
  const running = new Set<HarnessRequest>();
  let told = false;
  process.on('message', ({ add }: AddCommand) => {
    running.add(engine.add(add));
  });
  process.on('disconnect', () => process.exit());
  report({ ready: { engineId: engine.info.engineId, address: gates[0].address } });
  for (;;) {
    await engine.step();
    for (const request of running) {
      if (request.state !== 'finished') continue;
      running.delete(request);
      const { params, externalTokens } = request;
      report({ finished: { params, externalTokens, corruptions: engine.corruptions } });
    }
    if (shut && !told && gates.some((gate) => gate.waiting(shut) > 0)) {
      told = true;
      report({ stopped: shut });
    }
    if (engine.requests.size > 0 && running.size === 0 && engine.idle) {
      const failures = own.failures.map(({ code }) => code);
      report({ idle: { freeBlocks: engine.freeBlocks, blocks: engine.blocks, counters: counters(own), failures } });
      engine.requests.clear();
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

process.once('message', (options: ChildOptions) => void run(options));
