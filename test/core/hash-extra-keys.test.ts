import { blockHashes, extraKeys } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const digests = ['00'.repeat(32), '11'.repeat(32)];

test('a request without anything special has no extra keys', () => {
  assert.equal(extraKeys({ tokens: 50, blockSize: 16 }), [null, null, null]);
});

test('keys come in the order lora, mm, cache_salt, prompt_embeds; the salt in the first block only', () => {
  const keys = extraKeys({
    tokens: 8,
    blockSize: 4,
    lora: { name: 'sql', path: '/adapters/sql' },
    multimodal: [{ identifier: 'image', offset: 2, length: 4 }],
    cacheSalt: 'tenant',
    promptEmbeds: digests,
  });
  const bytes = digests.map((text) => Uint8Array.from(Buffer.from(text, 'hex')));
  const lora = ['lora', 'sql', '/adapters/sql'];
  assert.equal(keys, [
    [lora, ['mm', 'image', 2], ['cache_salt', 'tenant'], ['prompt_embeds', bytes[0]]],
    [lora, ['mm', 'image', -2], ['prompt_embeds', bytes[1]]],
  ]);
});

test('items are named in every block they touch, with the offset from its start', () => {
  const multimodal = [
    { identifier: 'a', offset: 1, length: 2 },
    { identifier: 'b', offset: 3, length: 6 },
    { identifier: 'c', offset: 12, length: 4 },
  ];
  assert.equal(extraKeys({ tokens: 20, blockSize: 4, multimodal }), [
    [
      ['mm', 'a', 1],
      ['mm', 'b', 3],
    ],
    [['mm', 'b', -1]],
    [['mm', 'b', -5]],
    [['mm', 'c', 0]],
    null,
  ]);
  assert.equal(extraKeys({ tokens: 20, blockSize: 4, multimodal, start: 8, cacheSalt: 'x' }), [
    [['mm', 'b', -5]],
    [['mm', 'c', 0]],
    null,
  ]);
});

test('an item that ended before the first block wanted is not named', () => {
  const multimodal = [{ identifier: 'a', offset: 1, length: 3 }];
  assert.equal(extraKeys({ tokens: 8, blockSize: 4, multimodal, start: 4 }), [null]);
});

test('from the end of the last item on none is named, as in vLLM, though an earlier one is longer', () => {
  const multimodal = [
    { identifier: 'video', offset: 1, length: 14 },
    { identifier: 'audio', offset: 3, length: 3 },
  ];
  assert.equal(extraKeys({ tokens: 12, blockSize: 4, multimodal }), [
    [['mm', 'video', 1]],
    [['mm', 'video', -3]],
    null,
  ]);
});

test('an empty salt is no salt', () => {
  assert.equal(extraKeys({ tokens: 4, blockSize: 4, cacheSalt: '' }), [null]);
});

test('the keys go into blockHashes as they are and change its hashes', () => {
  const tokens = [1, 2, 3, 4, 5, 6, 7, 8];
  const plain = blockHashes(tokens, { blockSize: 4 });
  const salted = blockHashes(tokens, {
    blockSize: 4,
    extraKeys: extraKeys({ tokens: tokens.length, blockSize: 4, cacheSalt: 'a' }),
  });
  assert.is.not(plain.hex(0), salted.hex(0));
  assert.is.not(plain.hex(1), salted.hex(1));
});

const wrong: [string, string, object][] = [
  ['tokens', 'tokens', { tokens: -1, blockSize: 4 }],
  ['blockSize', 'blockSize', { tokens: 4, blockSize: 0 }],
  ['more blocks than an array should hold', 'tokens', { tokens: 2 ** 31 - 1, blockSize: 1 }],
  ['start', 'start', { tokens: 8, blockSize: 4, start: 3 }],
  ['a LoRA that is empty text', 'lora', { tokens: 4, blockSize: 4, lora: '' }],
  ['a LoRA without its path', 'lora.path', { tokens: 4, blockSize: 4, lora: { name: 'a' } }],
  ['items that are no array', 'multimodal', { tokens: 4, blockSize: 4, multimodal: {} }],
  [
    'an item without a name',
    'multimodal[0].identifier',
    { tokens: 4, blockSize: 4, multimodal: [{ offset: 0, length: 1 }] },
  ],
  [
    'items out of order',
    'multimodal[1].offset',
    {
      tokens: 4,
      blockSize: 4,
      multimodal: [
        { identifier: 'a', offset: 2, length: 1 },
        { identifier: 'b', offset: 0, length: 1 },
      ],
    },
  ],
  ['a salt that is no text', 'cacheSalt', { tokens: 4, blockSize: 4, cacheSalt: 5 }],
  ['a missing digest', 'promptEmbeds[1]', { tokens: 8, blockSize: 4, promptEmbeds: [digests[0]] }],
  ['digests that are false', 'promptEmbeds', { tokens: 4, blockSize: 4, promptEmbeds: false }],
  ['digests that are no array', 'promptEmbeds', { tokens: 8, blockSize: 4, promptEmbeds: digests[0] }],
];
for (const [name, argument, request] of wrong) {
  test(`refused: ${name}`, () => {
    assert.throws(
      () => extraKeys(request as never),
      (error: { code: string; argument: string }) =>
        error.code === 'ERR_INVALID_ARGUMENT' && error.argument === argument,
    );
  });
}

test.run();
