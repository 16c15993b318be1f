import {
  BlockHashes,
  blockHashes,
  blockHashesBatch,
  digest,
  type MooncakeError,
  noneHash,
  sequenceHashes,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { naiveChain } from '../support/vectors.js';

type Case = [name: string, code: string, argument: string, call: () => unknown];

// The calls are wrong on purpose, also for the compiler.
// biome-ignore lint/suspicious/noExplicitAny: see above
const any = (value: unknown) => value as any;
const hash = (tokens: unknown, options: unknown) => () => blockHashes(any(tokens), any(options));
const keys = (extraKeys: unknown, algorithm = 'sha256_cbor') =>
  hash([1, 2, 3, 4], { blockSize: 2, algorithm, extraKeys, seed: '0' });
const detached = (): Uint32Array => {
  const tokens = Uint32Array.of(1, 2, 3, 4);
  structuredClone(tokens.buffer, { transfer: [tokens.buffer] });
  return tokens;
};
const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);

/** A list of `length`, if it says so. */
const withLength = (length: number) =>
  new Proxy([1, 2], { get: (list, key) => (key === 'length' ? length : Reflect.get(list, key)) });
/** A list with one element, null, which runs `code` when it is read. */
const lazyList = (code: () => void) =>
  Object.defineProperty([null], 0, {
    get() {
      code();
      return null;
    },
  });
function transferred<T extends ArrayBufferView>(view: T): T {
  structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] });
  return view;
}
const nameless = Object.create({ constructor: { name: Symbol('name') } });

const INVALID = 'ERR_INVALID_ARGUMENT';
const UNDEFINED = 'ERR_UNDEFINED_HASH';
const two = { blockSize: 2 };

const cases: Case[] = [
  ['no options', INVALID, 'blockSize', hash([1], undefined)],
  ['options that are no object', INVALID, 'options', hash([1], 16)],
  ...[0, -1, 1.5, 65537, Number.NaN, '16', null, 2 ** 40].map(
    (size): Case => [`blockSize ${size}`, INVALID, 'blockSize', hash([1], { blockSize: size })],
  ),
  ['a blockSize that throws when it is looked at', INVALID, 'blockSize', hash([1], { blockSize: nameless })],
  ['an algorithm that is null', INVALID, 'algorithm', hash([1], { blockSize: 1, algorithm: null })],
  ['an unknown algorithm', INVALID, 'algorithm', hash([1], { blockSize: 1, algorithm: 'md5' })],
  ['an algorithm of Object.prototype', INVALID, 'algorithm', hash([1], { blockSize: 1, algorithm: 'toString' })],
  ['a seed that is a number', INVALID, 'seed', hash([1], { blockSize: 1, seed: 0 })],
  ['a seed without UTF-8', INVALID, 'seed', hash([1], { blockSize: 1, seed: '\ud800' })],
  ['a pickled seed of 64 KiB', INVALID, 'seed', () => noneHash('sha256', 's'.repeat(65536))],
  ['tokens that are text', INVALID, 'tokens', hash('1234', two)],
  ['tokens that are null', INVALID, 'tokens', hash(null, two)],
  ['tokens whose buffer was transferred', INVALID, 'tokens', hash(detached(), two)],
  ['a batch with such tokens', INVALID, 'prompts[1]', () => blockHashesBatch([[1, 2], detached()], two)],
  ['tokens behind a proxy', INVALID, 'tokens', hash(new Proxy(Uint32Array.of(1, 2), {}), two)],
  ['tokens as 64-bit integers', INVALID, 'tokens', hash(new BigInt64Array(4), two)],
  ['a negative token', INVALID, 'tokens[3]', hash(Int32Array.of(1, 2, 3, -4, 5, -6), two)],
  ['a negative token after a whole vector', INVALID, 'tokens[5]', hash(Int32Array.of(0, 0, 0, 0, 0, -1), two)],
  ['a negative token of an array', INVALID, 'tokens[1]', hash([1, -1], two)],
  ['a token above 2^32 - 1', INVALID, 'tokens[0]', hash([2 ** 32, 1], two)],
  ['a token that is a fraction', INVALID, 'tokens[1]', hash([1, 1.5], two)],
  ['a token that is NaN', INVALID, 'tokens[1]', hash([1, Number.NaN], two)],
  ['a token that is text', INVALID, 'tokens[1]', hash([1, '2'], two)],
  ['a token that is a bigint', INVALID, 'tokens[1]', hash([1, 2n], two)],
  ['a hole in the tokens', INVALID, 'tokens[0]', hash(new Array(2), two)],
  ['a list longer than it may be', INVALID, 'tokens.length', hash(withLength(1e15), two)],
  ['a list whose length is no number', INVALID, 'tokens.length', hash(withLength(Number.NaN), two)],
  ['tokens behind a proxy', INVALID, 'tokens', hash(new Proxy(new Uint32Array(4), {}), two)],
  ['tokens that were transferred', INVALID, 'tokens', () => hash(transferred(new Uint32Array(4)), two)()],
  ['a wrong token behind the last full block', INVALID, 'tokens[2]', hash([1, 2, -3], two)],
  ['the same of an Int32Array', INVALID, 'tokens[2]', hash(Int32Array.of(1, 2, -3), two)],
  [
    'tokens that a getter transfers away',
    INVALID,
    'tokens',
    () => {
      const tokens = Uint32Array.of(1, 2, 3, 4);
      return blockHashes(tokens, { ...two, extraKeys: lazyList(() => void transferred(tokens)) });
    },
  ],
  [
    'tokens that a getter shrinks',
    INVALID,
    'tokens',
    () => {
      const buffer = new (any(ArrayBuffer))(16, { maxByteLength: 16 });
      return blockHashes(new Uint32Array(buffer), { ...two, extraKeys: lazyList(() => buffer.resize(8)) });
    },
  ],
  ['a parent of the wrong width', INVALID, 'parent', hash([1, 2], { ...two, parent: new Uint8Array(16) })],
  ['a parent that is no hex', INVALID, 'parent', hash([1, 2], { ...two, parent: 'zz'.repeat(32) })],
  ['a parent that is a number', INVALID, 'parent', hash([1, 2], { ...two, parent: 5 })],
  ['xxhash without a seed', UNDEFINED, 'seed', hash([1, 2], { ...two, algorithm: 'xxhash' })],
  ['xxhash_cbor without a seed', UNDEFINED, 'seed', () => noneHash('xxhash_cbor', null)],
  ['extra keys that are no array', INVALID, 'extraKeys', keys('lora')],
  ['more extra keys than blocks', INVALID, 'extraKeys', keys([null, null, null])],
  ['an entry that is no list', INVALID, 'extraKeys[1]', keys([null, 'lora'])],
  ['a key that is a fraction', INVALID, 'extraKeys[0][1]', keys([['a', 1.5]])],
  ['a key beyond 2^53', INVALID, 'extraKeys[0][0]', keys([[2 ** 53]])],
  ['a key that is true', INVALID, 'extraKeys[0][0][1]', keys([[['a', true]]])],
  ['a key that is undefined', INVALID, 'extraKeys[0][0]', keys([[undefined]])],
  ['a key that is an object', INVALID, 'extraKeys[0][0]', keys([[{ tuple: [] }]])],
  ['bytes that are no hex', INVALID, 'extraKeys[0][0].bytes_hex', keys([[{ bytes_hex: 'abc' }]])],
  ['text without UTF-8', INVALID, 'extraKeys[0][0]', keys([['a\udc00b']])],
  ['text without UTF-8 in a pickle', INVALID, 'extraKeys[0][0]', keys([['a\udc00b']], 'sha256')],
  ['keys nested without end', INVALID, `extraKeys[0]${'[0]'.repeat(33)}`, keys([nested(60)])],
  ['keys nested without end in a pickle', INVALID, `extraKeys[0]${'[0]'.repeat(33)}`, keys([nested(60)], 'xxhash')],
  [
    'equal text twice in a pickle',
    UNDEFINED,
    'extraKeys[0][1][1]',
    keys(
      [
        [
          ['lora', 'a'],
          ['mm', 'a', 0],
        ],
      ],
      'sha256',
    ),
  ],
  ['a tag as a value in a pickle', UNDEFINED, 'extraKeys[0][0][1]', keys([[['mm', 'mm', 0]]], 'xxhash')],
  [
    'a value, then the same as a tag',
    UNDEFINED,
    'extraKeys[0][1][0]',
    keys(
      [
        [
          ['lora', 'mm'],
          ['mm', 'a'],
        ],
      ],
      'sha256',
    ),
  ],
  [
    'equal bytes twice in a pickle',
    UNDEFINED,
    'extraKeys[0][1]',
    keys([[Uint8Array.of(1), Uint8Array.of(1)]], 'sha256'),
  ],
  [
    'a pickle of more than one frame',
    'ERR_NOT_SUPPORTED',
    'blocks whose pickle takes 64 KiB or more',
    hash(new Uint32Array(13_107).fill(70_000), { blockSize: 13_107, algorithm: 'sha256' }),
  ],
  [
    'a pickle of more than one frame in a batch',
    'ERR_NOT_SUPPORTED',
    'blocks whose pickle takes 64 KiB or more',
    () =>
      blockHashesBatch(
        [
          [1, 2],
          [3, 4],
        ].map((tokens) => ({ tokens, extraKeys: [['s'.repeat(70_000)]] })),
        {
          ...two,
          algorithm: 'sha256',
        },
      ),
  ],
  ['prompts that are no array', INVALID, 'prompts', () => blockHashesBatch(any({}), two)],
  ['a prompt without tokens', INVALID, 'prompts[1].tokens', () => blockHashesBatch([[1, 2], any({})], two)],
  ['a prompt that is null', INVALID, 'prompts[0]', () => blockHashesBatch([any(null)], two)],
  [
    'a wrong token in a batch',
    INVALID,
    'prompts[1][0]',
    () =>
      blockHashesBatch(
        [
          [1, 2],
          [-3, 4],
        ],
        two,
      ),
  ],
  [
    'a wrong parent in a batch',
    INVALID,
    'prompts[0].parent',
    () => blockHashesBatch([{ tokens: [1, 2], parent: 'ab' }], two),
  ],
  [
    'wrong extra keys in a batch',
    INVALID,
    'prompts[0].extraKeys[0]',
    () => blockHashesBatch([{ tokens: [1, 2], extraKeys: any([5]) }], two),
  ],
  ['a sequence seed below zero', INVALID, 'seed', () => sequenceHashes([1], { blockSize: 1, seed: -1 })],
  ['a sequence seed above 2^64 - 1', INVALID, 'seed', () => sequenceHashes([1], { blockSize: 1, seed: 2n ** 64n })],
  ['a sequence block size of 0', INVALID, 'blockSize', () => sequenceHashes([1], { blockSize: 0 })],
  ['a sequence parent too short', INVALID, 'parent', () => sequenceHashes([1], { blockSize: 1, parent: 'ff' })],
  ['a sequence of negative tokens', INVALID, 'tokens[0]', () => sequenceHashes(Int32Array.of(-1), { blockSize: 1 })],
  ['a digest of another name', INVALID, 'kind', () => digest(any('md5'), new Uint8Array(1))],
  ['a seed for SHA-256', INVALID, 'seed', () => digest('sha256', new Uint8Array(1), 1)],
  ['a digest of bytes that were transferred', INVALID, 'data', () => digest('sha256', transferred(new Uint8Array(8)))],
  ['a digest of text', INVALID, 'data', () => digest('sha256', any('text'))],
  ['hashes of no bytes', INVALID, 'bytes', () => new BlockHashes(any([1]), 8)],
  ['hashes of a broken length', INVALID, 'bytes', () => new BlockHashes(new Uint8Array(15), 16)],
  ['hashes of an odd width', INVALID, 'width', () => new BlockHashes(new Uint8Array(12), any(12))],
  ['a hash past the end', INVALID, 'i', () => blockHashes([1, 2], two).at(1)],
  ['a slice past the end', INVALID, 'to', () => blockHashes([1, 2], two).slice(0, 2)],
  ['a group above u32', INVALID, 'group', () => blockHashes([1, 2], two).withGroup(2 ** 32)],
];

const tokens = [1, 2, 3, 4];
const expected = naiveChain(noneHash(), tokens, 2);

for (const [name, code, argument, call] of cases) {
  test(`${name} is refused, and the core still hashes`, () => {
    assert.throws(call, (error: MooncakeError) => {
      assert.is(error.name, 'MooncakeError', error.stack);
      assert.is(error.code, code, error.message);
      assert.is(error.argument, argument, error.message);
      return true;
    });
    assert.equal(blockHashes(tokens, two).toHex(), expected);
  });
}

test('a huge value is named briefly', () => {
  assert.throws(hash([1], { blockSize: 10n ** 5000n }), (error: Error) => error.message.length < 200);
});

test('errors carry the value', () => {
  try {
    blockHashes(Int32Array.of(5, -7), { blockSize: 2 });
    assert.unreachable();
  } catch (error) {
    assert.is((error as MooncakeError).value, -7);
    assert.match((error as Error).message, 'tokens[1] must be a token id, an integer from 0 to 4294967295, got -7');
  }
});

// The hashes of these two tests are vLLM's.
test('what stands twice is no matter for CBOR', () => {
  const twice = [
    [
      ['lora', 'a', 'a'],
      ['mm', 'a', 0],
    ],
  ];
  assert.is(
    blockHashes([1, 2], { blockSize: 2, extraKeys: twice }).hex(0),
    '872ebb54f917f160b5cb3f3041ff2490dc8d93b22ea6bdb0bc7419149d945aa9',
  );
});

test('the longest pickle of one frame is hashed, a byte more is refused', () => {
  const text = (length: number) => ({ ...two, algorithm: 'sha256' as const, extraKeys: [['x'.repeat(length)]] });
  assert.is(
    blockHashes([1, 2], text(65_483)).hex(0),
    'd1da17e19adcc4aa2d0aafe9bb1599787df56cee2989e34d544a73bac3199558',
  );
  assert.throws(hash([1, 2], text(65_484)), (error: MooncakeError) => error.code === 'ERR_NOT_SUPPORTED');
});

test.run();
