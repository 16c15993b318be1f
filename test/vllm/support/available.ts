/** Tests of engines, skipped with the setup's reason where vLLM could not be installed. */
import { skip } from '../../support/skip.js';

interface Tests {
  (name: string, body: () => Promise<void>): void;
  skip(name: string, body: () => void): void;
}

/** `test` of uvu, for what needs an engine. */
export function withVllm(test: Tests): (name: string, body: () => Promise<void>) => void {
  const { MOONCAKE_VLLM_ENGINE: engine, MOONCAKE_VLLM_MISSING: why, MOONCAKE_VLLM_ENABLE: enable } = process.env;
  if (engine) return test;
  return (name) => skip(test, name, `no vLLM: ${why ?? 'the lane has not prepared it'}`, enable ?? 'npm run test:vllm');
}
