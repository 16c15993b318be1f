/**
 * From a prompt's tokens to the instance that has most of it: hash (xxhash_cbor, 860 blocks of 16 tokens), match, choose.
 * 512 prompts in families that share their first half, leading parts of them held by 16 instances; one thread, medians.
 *
 *     npm run bench -- route [--json]
 */
import { blockHashes, InstanceChooser, PrefixIndex } from 'mooncake-ts';
import { nanoseconds, report } from './support/report.js';

const BLOCKS = 860;
const PROMPTS = 512;
const INSTANCES = 16;
const FAMILY = 8;

const options = { blockSize: 16, algorithm: 'xxhash_cbor', seed: '0' } as const;
const prompts = Array.from({ length: PROMPTS }, (_, prompt) =>
  Uint32Array.from({ length: 16 * BLOCKS }, (_, i) => {
    const text = i < 8 * BLOCKS ? Math.floor(prompt / FAMILY) : 7919 * prompt + 1;
    return (Math.imul(i + 1, 2654435761) ^ Math.imul(text, 40503)) >>> 15;
  }),
);

const index = new PrefixIndex({ keyWidth: 16 });
const names = Array.from({ length: INSTANCES }, (_, i) => `instance-${i}`);
for (const name of names) index.addInstance(name);
for (const [i, prompt] of prompts.entries()) {
  index.insert(i % INSTANCES, blockHashes(prompt, options).slice(0, (i * 131) % BLOCKS));
}
const hashed = prompts.map((prompt) => blockHashes(prompt, options));
const chooser = new InstanceChooser(names);
let chosen = 0;

// V8 compiles the core well only after many calls.
const WARM = 20 * PROMPTS;

const each = (name: string, work: (i: number) => void) => {
  for (let i = 0; i < WARM; i++) work(i % PROMPTS);
  const ns = nanoseconds(() => {
    for (let i = 0; i < PROMPTS; i++) work(i);
  });
  report({ name, value: ns / PROMPTS / 1000, unit: 'us a prompt' }, 'lower');
};

each('tokens to instance, 860 blocks', (i) => {
  const hashes = blockHashes(prompts[i], options);
  chosen += chooser.choose(index.match(hashes), { blocks: BLOCKS }).instance;
});
each('  of it: hash', (i) => {
  chosen += blockHashes(prompts[i], options).length;
});
each('  of it: match', (i) => {
  chosen += index.match(hashed[i]).matched;
});
each('  of it: match and choose', (i) => {
  chosen += chooser.choose(index.match(hashed[i]), { blocks: BLOCKS }).instance;
});
if (chosen === 0) throw new Error('nothing was chosen');
