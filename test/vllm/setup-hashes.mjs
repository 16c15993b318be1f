// What the lane `hashes` needs of the lane `vllm`: vLLM's own hash functions, no engine.
export { hashes as default } from './setup.mjs';
