/**
 * How long a run-time takes from a prompt's tokens to its instance: 860 blocks of 16 tokens hashed with xxhash_cbor,
 * matched against an index of 100 such prompts on 16 instances, an instance chosen. The figures are printed, never judged.
 */
import { blockHashes, InstanceChooser, PrefixIndex } from 'mooncake-ts/edge';

/** Prompts of one run. */
export const ROUNDS = 300;
const BLOCKS = 860;
const PROMPTS = 100;
const INSTANCES = 16;
const options = { algorithm: 'xxhash_cbor', blockSize: 16, seed: '0' } as const;

function prepare() {
  const prompts = Array.from({ length: PROMPTS }, (_, stem) =>
    Int32Array.from({ length: 16 * BLOCKS }, (_, i) => (i < 16 * 60 ? i : (stem * 65_537 + i * 7_919) % 128_000)),
  );
  const index = new PrefixIndex({ keyWidth: 16 });
  for (let id = 0; id < INSTANCES; id++) index.addInstance(`gpu-${id}`);
  for (const [stem, tokens] of prompts.entries()) index.insert(stem % INSTANCES, blockHashes(tokens, options));
  return { prompts, index, chooser: new InstanceChooser(INSTANCES) };
}

let prepared: ReturnType<typeof prepare> | undefined;

/** Routes `rounds` prompts; a sum that the choices add up to. */
export function route(rounds: number): number {
  const { prompts, index, chooser } = (prepared ??= prepare());
  let sum = 0;
  for (let round = 0; round < rounds; round++) {
    const hashes = blockHashes(prompts[(round * 617) % PROMPTS], options);
    sum += chooser.choose(index.match(hashes), { blocks: hashes.length }).instance;
  }
  return sum;
}

/** Milliseconds that ROUNDS prompts take, the fastest of ten runs: what else the machine does only ever adds. */
export function measure(): number {
  let fastest = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 10; run++) {
    const start = performance.now();
    route(ROUNDS);
    fastest = Math.min(fastest, performance.now() - start);
  }
  return fastest;
}

/** One line for the lane's output: `ms` for ROUNDS prompts. */
export function note(runtime: string, ms: number): void {
  console.log(`\nNOTE ${runtime}: ${((1000 * ms) / ROUNDS).toFixed(0)} us from 13,760 tokens to the instance`);
}
