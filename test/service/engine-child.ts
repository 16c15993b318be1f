/** An engine in a process of its own, for tests to kill: it computes prompts over and over, and says when it has one; "gpu": on one. */
import { ServiceConnector, sharedMemory } from 'mooncake-ts';
import { HarnessEngine, tokensOf } from '../connector/harness.js';
import { gpuMemory, onGpu } from '../support/gpu-cache.js';

const [socket, engineId, where] = process.argv.slice(2);
const connector = new ServiceConnector({ socket, connector: { kind: 'store', loadAsync: true }, timeoutMs: 20_000 });
const engine = new HarnessEngine({
  connector: where === 'gpu' ? onGpu(connector) : connector,
  allocate: where === 'gpu' ? gpuMemory : sharedMemory,
  engineId,
  blocks: 256,
  maxTokensPerStep: 16,
});
for (let round = 0; ; round++) {
  for (let i = 0; i < 6; i++) engine.add({ tokens: tokensOf(i, 90), maxTokens: 4 });
  await engine.drain();
  if (engine.corruptions.length > 0) throw new Error(engine.corruptions.join('\n'));
  process.stdout.write(`${round}\n`);
}
