/**
 * What every run-time must do alike, Node included: hash prompts, match them against a snapshot, choose instances, refuse
 * bad input and go on working. Takes and gives JSON, so it can be told and asked over any border; it uses nothing that a
 * run-time may lack.
 */
import { blockHashes, type Choice, InstanceChooser, MooncakeError, noneHash, PrefixIndex } from 'mooncake-ts/edge';

type HashOptions = Parameters<typeof blockHashes>[1];

export interface ScenarioInput {
  /** One block each, with what vLLM needs to know of it. */
  blocks: { tokens: number[]; options: HashOptions }[];
  /** Seeds and algorithms of NONE_HASH. */
  seeds: { algorithm: 'sha256' | 'sha256_cbor' | 'xxhash' | 'xxhash_cbor'; seed: string }[];
  /** A snapshot of PrefixIndex, base64, over chains of `options`. */
  snapshot: string;
  options: HashOptions;
  prompts: number[][];
  instances: number;
}

export interface ScenarioReport {
  blocks: string[];
  seeds: string[];
  /** For each prompt: blocks that each instance holds in gpu, then in cpu. */
  lengths: number[][];
  choices: Choice[];
  /** code and argument of each refusal, in order; `none` where bad input was taken. */
  refusals: string[];
  /** The choices again, after the refusals. */
  again: Choice[];
}

const fromBase64 = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

function refusal(work: () => unknown): string {
  try {
    work();
    return 'none';
  } catch (error) {
    return error instanceof MooncakeError ? `${error.code} ${error.argument}` : `not a MooncakeError: ${error}`;
  }
}

export function run(input: ScenarioInput): ScenarioReport {
  const { options, instances } = input;
  const bytes = fromBase64(input.snapshot);
  const index = PrefixIndex.load(bytes);
  const choose = () => {
    const chooser = new InstanceChooser(instances);
    return input.prompts.map((tokens) => {
      const hashes = blockHashes(tokens, options);
      return chooser.choose(index.match(hashes), { blocks: hashes.length });
    });
  };
  const lengths = input.prompts.map((tokens) => {
    const match = index.match(blockHashes(tokens, options));
    const ids = Array.from({ length: instances }, (_, instance) => instance);
    return [...ids.map((instance) => match.length(instance, 'gpu')), ...ids.map((id) => match.length(id, 'cpu'))];
  });
  const choices = choose();
  const [prompt] = input.prompts;
  const corrupt = bytes.slice();
  corrupt[corrupt.length >> 1] ^= 1;
  const bad = undefined as never;
  return {
    blocks: input.blocks.map((block) => blockHashes(block.tokens, block.options).hex(0)),
    seeds: input.seeds.map(({ algorithm, seed }) => hex(noneHash(algorithm, seed))),
    lengths,
    choices,
    refusals: [
      refusal(() => blockHashes(bad, options)),
      refusal(() => blockHashes([-1], { ...options, blockSize: 1 })),
      refusal(() => blockHashes(prompt, { ...options, blockSize: 0 })),
      refusal(() => blockHashes(prompt, { ...options, algorithm: 'md5' as never })),
      refusal(() => PrefixIndex.load(new Uint8Array(7))),
      refusal(() => PrefixIndex.load(bytes.subarray(0, bytes.length - 1))),
      refusal(() => PrefixIndex.load(corrupt)),
      refusal(() => index.match(bad)),
      refusal(() => new InstanceChooser(0)),
    ],
    again: choose(),
  };
}
