import { noneHash } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { run } from '../support/cli.js';
import { hex, naiveChain, readVectors, untuple, type Vector } from '../support/vectors.js';

const { vectors } = readVectors<{ vectors: Vector[] }>('block_hash_vectors.json');
const lines = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

test("vLLM's vectors through the command, line by line", async () => {
  const blocks = vectors.filter((vector) => vector.kind === 'block');
  const input = blocks.map((vector) =>
    JSON.stringify({
      tokens: vector.tokens,
      blockSize: vector.block_size,
      algorithm: vector.algo,
      seed: vector.pythonhashseed,
      extraKeys: vector.extra_keys === null ? null : [untuple(vector.extra_keys)],
      parent: vector.parent,
    }),
  );
  const { code, stdout, stderr } = await run(['hash'], input.join('\n'));
  assert.is(code, 0, stderr);
  const none = new Map(
    vectors.filter(({ kind }) => kind === 'none_hash').map((v) => [v.algo + v.pythonhashseed, v.hash]),
  );
  assert.equal(
    lines(stdout),
    blocks.map((vector) => ({ hashes: [vector.hash], noneHash: none.get(vector.algo + vector.pythonhashseed) })),
  );
});

test('a line names only what differs from the options', async () => {
  const { stdout } = await run(['hash', '--block-size', '2', '--seed', '5'], '{"tokens":[1,2,3,4,5]}\n');
  const none = noneHash('sha256_cbor', '5');
  assert.equal(lines(stdout), [{ hashes: naiveChain(none, [1, 2, 3, 4, 5], 2), noneHash: hex(none) }]);
});

test('a wrong line answers in its place, is named on stderr, and fails the command at its end', async () => {
  const good = '{"tokens":[1,2],"blockSize":2}';
  const input = [good, '{"tokens":[1,-2],"blockSize":2}', 'tokens', '[]', '{"token":[1]}', '', good].join('\n');
  const { code, stdout, stderr } = await run(['hash'], input);
  assert.is(code, 1);
  const answers = lines(stdout);
  assert.equal(
    answers.map(({ error }) => error?.argument ?? null),
    [null, 'tokens[1]', 'line', 'line', 'field', null],
  );
  assert.is(answers[1].error.code, 'ERR_INVALID_ARGUMENT');
  assert.equal(answers[0], answers[5]);
  assert.match(
    stderr,
    'line 2: tokens[1] must be a token id, an integer from 0 to 4294967295, got -2 [ERR_INVALID_ARGUMENT]',
  );
  assert.match(stderr, 'line 3: ');
  assert.not.match(stderr, 'line 7: ');
});

test('xxhash with a parent and no seed has hashes but no NONE_HASH', async () => {
  const vector = vectors.find((own) => own.kind === 'block' && own.algo === 'xxhash_cbor' && own.parent !== null)!;
  const line = {
    tokens: vector.tokens,
    blockSize: vector.block_size,
    algorithm: vector.algo,
    parent: vector.parent,
    extraKeys: vector.extra_keys === null ? null : [untuple(vector.extra_keys)],
  };
  const { stdout } = await run(['hash'], JSON.stringify(line));
  assert.equal(lines(stdout), [{ hashes: [vector.hash], noneHash: null }]);
  const without = await run(['hash'], JSON.stringify({ ...line, parent: null }));
  assert.is(without.code, 1);
  assert.is(lines(without.stdout)[0].error.code, 'ERR_UNDEFINED_HASH');
});

const salted = (salt: string) => `{"tokens":[1,2],"blockSize":2,"extraKeys":[[["cache_salt","${salt}"]]]}`;

test('lines end at LF, with or without CR, and the last one at the end', async () => {
  const plain = '{"tokens":[1,2],"blockSize":2}';
  const [hash] = naiveChain(noneHash(), [1, 2], 2);
  const input = `\ufeff${plain}\r\n\r\n  \n${plain.replace(',', ',\r')}\n${plain}`;
  const { code, stdout } = await run(['hash'], input);
  assert.is(code, 0);
  assert.equal(
    lines(stdout).map(({ hashes }) => hashes),
    [[hash], [hash], [hash]],
  );
});

test('text may hold U+2028; what is no UTF-8 is refused, not replaced', async () => {
  const [before, after] = salted('a|b').split('|');
  const input = [salted('a\u2028b'), '\n', before, Uint8Array.of(0xff), after, '\n', salted('ab')];
  const { code, stdout } = await run(['hash'], Buffer.concat(input.map((part) => Buffer.from(part as string))));
  assert.is(code, 1);
  const [separator, broken, plain] = lines(stdout);
  assert.equal(separator.hashes, naiveChain(noneHash(), [1, 2], 2, ['a\u2028b']));
  assert.is(broken.error.argument, 'line');
  assert.match(broken.error.message, 'UTF-8');
  assert.equal(plain.hashes, naiveChain(noneHash(), [1, 2], 2, ['ab']));
});

test('a line of megabytes', async () => {
  const tokens = Array.from({ length: 300_000 }, (_, i) => i);
  const { code, stdout } = await run(['hash'], JSON.stringify({ tokens, blockSize: 50_000 }));
  assert.is(code, 0);
  assert.equal(lines(stdout)[0].hashes, naiveChain(noneHash(), tokens, 50_000));
});

test('an algorithm that is null is refused, not another one', async () => {
  const { stdout } = await run(['hash', '-a', 'xxhash'], '{"tokens":[1,2],"blockSize":2,"algorithm":null,"seed":"1"}');
  assert.is(lines(stdout)[0].error.argument, 'algorithm');
});

test('thousands of lines keep their order', async () => {
  const prompts = Array.from({ length: 3000 }, (_, i) => [i, i + 1]);
  const { code, stdout } = await run(
    ['hash', '-b', '2'],
    prompts.map((tokens) => JSON.stringify({ tokens })).join('\n'),
  );
  assert.is(code, 0);
  assert.equal(
    lines(stdout).map(({ hashes }) => hashes),
    prompts.map((tokens) => naiveChain(noneHash(), tokens, 2)),
  );
});

test('a wrong option is refused at once', async () => {
  const size = await run(['hash', '--block-size', '0']);
  assert.is(size.code, 1);
  assert.match(size.stderr, 'blockSize must be an integer from 1 to 65536, got 0');
  const word = await run(['hash', '--block-size', 'many']);
  assert.is(word.code, 1);
  assert.match(word.stderr, 'whole number');
});

test('--help says what a line may hold', async () => {
  const { code, stdout } = await run(['hash', '--help']);
  assert.is(code, 0);
  assert.match(stdout, /"tokens":\[1,2,3,4\]/);
  assert.match(stdout, /bytes_hex/);
});

test.run();
