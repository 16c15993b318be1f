/** Layouts that cannot be, layouts that do not match, block lists that cannot be mapped: typed errors that name them. */
import fc from 'fast-check';
import {
  Descriptors,
  fromTorch,
  headRange,
  KvLayout,
  type KvLayoutOptions,
  MooncakeError,
  planTransfer,
  TransferPlan,
  transferSources,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

// biome-ignore lint/suspicious/noExplicitAny: these tests put wrong values everywhere
type Loose = Record<string, any>;

/** Eight heads of 16 bytes, 4 tokens a block, 10 blocks, 2 layers. */
function options(change: (layout: Loose) => void = () => {}): KvLayoutOptions {
  const tensor = () => ({
    dtype: 'bfloat16',
    elements: 8,
    strides: { block: 1024, token: 128, head: 16, layer: 10240 } as Loose,
    at: { segment: 3, offset: 0 } as Loose,
  });
  const layout: Loose = {
    segments: [{ id: 3, length: 2 * 20480 }],
    tensorParallel: { rank: 0, size: 1 },
    groups: [
      { kind: 'full', layers: [0, 1], blockSize: 4, blocks: 10, heads: 8, tensors: { k: tensor(), v: tensor() } },
    ],
  };
  layout.groups[0].tensors.k.strides.block = layout.groups[0].tensors.v.strides.block = 1024;
  layout.groups[0].tensors.v.at.offset = 512;
  change(layout);
  return layout as KvLayoutOptions;
}

const layout = (change?: (layout: Loose) => void) => new KvLayout(options(change));

function refused(code: string, argument: string, act: () => unknown): void {
  try {
    act();
  } catch (error) {
    assert.instance(error, MooncakeError, `${argument}: ${error}`);
    const { code: actual, argument: named, message } = error as MooncakeError;
    assert.is(actual, code, message);
    assert.is(named, argument, message);
    return;
  }
  assert.unreachable(`${argument} was accepted`);
}

const invalid = (argument: string, act: () => unknown) => refused('ERR_INVALID_ARGUMENT', argument, act);
const mismatched = (argument: string, act: () => unknown) => refused('ERR_LAYOUT_MISMATCH', argument, act);

test('the layout that the others change is a good one', () => {
  const good = layout();
  assert.is(planTransfer(good, good, { sourceBlocks: [1], destinationBlocks: [2] }).totalBytes, 2 * 2 * 4 * 8 * 16);
});

test('a layout with a wrong field is refused by its path', () => {
  const k = (l: Loose) => l.groups[0].tensors.k;
  const cases: [string, (layout: Loose) => void][] = [
    ['segments', (l) => (l.segments = 'none')],
    ['segments[0].id', (l) => (l.segments[0].id = -1)],
    ['segments[1].id', (l) => l.segments.push({ id: 3, length: 1 })],
    ['segments[0].length', (l) => (l.segments[0].length = 2 ** 60)],
    ['tensorParallel.size', (l) => (l.tensorParallel.size = 0)],
    ['tensorParallel.rank', (l) => (l.tensorParallel.rank = 1)],
    ['pipelineParallel.rank', (l) => (l.pipelineParallel = { rank: 2, size: 2 })],
    ['groups', (l) => (l.groups = [])],
    ['groups[0]', (l) => (l.groups = [null])],
    ['groups[0].kind', (l) => (l.groups[0].kind = 'linear')],
    ['groups[0].blockSize', (l) => (l.groups[0].blockSize = 0)],
    ['groups[0].blocks', (l) => (l.groups[0].blocks = 2 ** 32)],
    ['groups[0].layers[1]', (l) => (l.groups[0].layers = [1, 1])],
    ['groups[0].layers[0]', (l) => (l.groups[0].layers = ['0', 1])],
    ['groups[0].layers.to', (l) => (l.groups[0].layers = { from: 3, to: 2 })],
    ['groups[0].heads', (l) => (l.groups[0].heads = undefined)],
    ['groups[0].heads', (l) => (l.tensorParallel.size = 3)],
    ['groups[0].heads', (l) => (l.groups[0].kind = 'mla')],
    ['groups[0].localHeads', (l) => (l.groups[0].localHeads = 4)],
    ['groups[0].window', (l) => (l.groups[0].kind = 'sliding')],
    ['groups[0].window', (l) => (l.groups[0].window = 16)],
    ['groups[0].nullBlock', (l) => (l.groups[0].nullBlock = 0)],
    ['groups[0].replicated', (l) => (l.groups[0].replicated = true)],
    ['groups[0].tensors', (l) => (l.groups[0].tensors = {})],
    ['groups[0].tensors', (l) => (l.groups[0].tensors = undefined)],
    ['groups[0].tensors.k', (l) => (l.groups[0].tensors.k = 5)],
    ['groups[0].tensors.k.dtype', (l) => (k(l).dtype = 'float')],
    ['groups[0].tensors.k.elements', (l) => (k(l).elements = 1.5)],
    ['groups[0].tensors.k.strides', (l) => (k(l).strides = undefined)],
    ['groups[0].tensors.k.strides.block', (l) => (k(l).strides.block = -1024)],
    ['groups[0].tensors.k.strides.token', (l) => (k(l).strides.token = undefined)],
    ['groups[0].tensors.k.strides.head', (l) => (k(l).strides.head = Number.NaN)],
    ['groups[0].tensors.k.strides.layer', (l) => (k(l).strides.layer = undefined)],
    ['groups[0].tensors.k.at', (l) => (k(l).at = undefined)],
    ['groups[0].tensors.k.at', (l) => (k(l).at = [{ segment: 3, offset: 0 }])],
    ['groups[0].tensors.k.at[0].segment', (l) => (k(l).at.segment = 4)],
    ['groups[0].tensors.v.at[0].offset', (l) => (l.groups[0].tensors.v.at.offset = 8)],
    // Block 0 of the second would lie in block 1 of the first; layers a block apart instead of a tensor apart.
    ['groups[0].tensors.v.at[0].offset', (l) => (l.groups[0].tensors.v.at.offset = 1024)],
    ['groups[0].tensors.v.at[0].offset', (l) => (l.groups[0].tensors.v.at.offset = 9 * 1024 + 500)],
    [
      'groups[0].tensors.k.at[1].offset',
      (l) => {
        l.groups[0].tensors = { k: { ...k(l), strides: { ...k(l).strides, layer: undefined } } };
        k(l).at = [0, 1024].map((offset) => ({ segment: 3, offset }));
      },
    ],
    // Leaves its segment in the second layer; overlaps itself along one axis or another.
    ['groups[0].tensors.k.at[1].offset', (l) => (k(l).strides.layer = 2 * 20480)],
    ['groups[0].tensors.k.strides.head', (l) => (k(l).strides.head = 8)],
    ['groups[0].tensors.k.strides.block', (l) => (k(l).strides.block = 500)],
    ['groups[0].tensors.k.strides.layer', (l) => (k(l).strides.layer = 1024)],
    ['groups[0].tensors.k.strides.token', (l) => (k(l).strides.token = 0)],
  ];
  for (const [argument, change] of cases) invalid(argument, () => layout(change));
  for (const value of [undefined, null, 5, 'layout', []]) invalid('layout', () => new KvLayout(value as never));
});

test('layouts of different caches are refused by the field, with both values', () => {
  const good = layout();
  const cases: [string, (layout: Loose) => void][] = [
    ['groups[0].kind', (l) => Object.assign(l.groups[0], { kind: 'sliding', window: 8 })],
    ['groups[0].heads', (l) => (l.groups[0].heads = 4)],
    ['groups[0].tensors', (l) => (l.groups[0].tensors = { k: l.groups[0].tensors.k })],
    ['groups[0].tensors.k.dtype', (l) => (l.groups[0].tensors.k.dtype = 'float16')],
    ['groups[0].tensors.v.elements', (l) => (l.groups[0].tensors.v.elements = 4)],
    ['groups[0].tensors.k.strides.head', (l) => (l.groups[0].tensors.k.strides.head = null)],
  ];
  for (const [argument, change] of cases) {
    mismatched(argument, () => new TransferPlan(good, layout(change)));
    mismatched(argument, () => new TransferPlan(layout(change), good));
  }
  assert.throws(
    () =>
      new TransferPlan(
        good,
        layout((l) => (l.groups[0].tensors.k.dtype = 'float16')),
      ),
    /the source has "bfloat16", the destination "float16"/,
  );
});

test('one scale per block splits with its block and its heads, and never joins', () => {
  const scaled = (size: number, blockSize: number, head: number | null) =>
    layout((l) => {
      l.tensorParallel.size = size;
      l.groups[0].blockSize = blockSize;
      l.groups[0].tensors.k = {
        dtype: 'float32',
        elements: 1,
        strides: { block: 1024, token: null, head, layer: 10240 },
        at: { segment: 3, offset: 0 },
      };
    });
  mismatched('groups[0].blockSize', () => new TransferPlan(scaled(1, 2, 16), scaled(1, 4, 16)));
  mismatched('groups[0].headRange', () => new TransferPlan(scaled(2, 4, null), scaled(1, 4, null)));
  assert.throws(
    () => new TransferPlan(scaled(2, 4, null), scaled(1, 4, null)),
    /the source has "0 to 3", the destination "0 to 7"/,
  );
  const blocks = { sourceBlocks: [1], destinationBlocks: [2, 3] };
  assert.is(planTransfer(scaled(1, 4, null), scaled(2, 2, null), blocks).totalBytes, 2 * (4 * 4 * 16 + 2 * 4));
  invalid('tokens.from', () => planTransfer(scaled(1, 4, 16), scaled(1, 2, 16), { ...blocks, tokens: { from: 1 } }));
});

test('a state moves between equal shards only', () => {
  const state = (rank: number, size: number, replicated?: boolean, blockSize = 512) =>
    new KvLayout({
      segments: [{ id: 0, length: 1000 }],
      tensorParallel: { rank, size },
      groups: [
        {
          kind: 'state',
          layers: [0],
          blockSize,
          blocks: 10,
          replicated,
          tensors: { ssm: { dtype: 'uint8', elements: 100, strides: { block: 100 }, at: { segment: 0, offset: 0 } } },
        },
      ],
    });
  mismatched('tensorParallel.size', () => new TransferPlan(state(0, 1), state(0, 2)));
  mismatched('tensorParallel.rank', () => new TransferPlan(state(0, 2), state(1, 2)));
  mismatched('groups[0].replicated', () => new TransferPlan(state(0, 2, true), state(0, 2)));
  mismatched('groups[0].blockSize', () => new TransferPlan(state(0, 1, true, 256), state(0, 2, true)));
  assert.is(planTransfer(state(0, 1, true), state(1, 2, true), { sourceBlocks: [1], destinationBlocks: [2] }).count, 1);
});

/** Ids whose buffer was transferred: an empty plan for them would be a silent loss. */
function detached(): Uint32Array {
  const ids = Uint32Array.of(1, 2);
  structuredClone(ids.buffer, { transfer: [ids.buffer] });
  return ids;
}

test('block lists that cannot be mapped are refused, and the core stays usable', () => {
  const good = layout();
  const plan = (sourceBlocks: unknown, destinationBlocks: unknown, more: object = {}) =>
    planTransfer(good, good, { sourceBlocks, destinationBlocks, ...more } as never);
  const cases: [string, unknown, unknown, object?][] = [
    ['sourceBlocks', 'blocks', [1]],
    ['sourceBlocks', undefined, [1]],
    ['sourceBlocks', detached(), []],
    ['sourceBlocks', new Proxy(Uint32Array.of(1), {}), [1]],
    ['destinationBlocks', [1], new Float64Array([1])],
    ['sourceBlocks', new Uint32Array((1 << 20) + 1), [1]],
    ['sourceBlocks[1]', [1, 10], [1, 2]],
    ['sourceBlocks[0]', new Int32Array([-1]), [1]],
    ['destinationBlocks[0]', [1], [0.5]],
    ['destinationBlocks[0]', [1], ['1']],
    ['destinationBlocks[0]', [1], [Number.NaN]],
    ['destinationBlocks[2]', [1, 2, 3], [5, 6, 5]],
    ['destinationBlocks[1]', [1, 2], [5, 5], { tokens: { to: 7 } }],
    ['destinationBlocks', [1, 2], [1]],
    ['tokens', [1], [1], { tokens: 4 }],
    ['tokens.to', [1], [1], { tokens: { to: 5 } }],
    ['tokens.from', [1], [1], { tokens: { from: -1 } }],
    ['tokens.from', [1], [1], { tokens: { from: 3, to: 2 } }],
    ['layers.from', [1], [1], { layers: { from: -1, to: 2 } }],
    ['layers[0]', [1], [1], { layers: ['all'] }],
    ['layers', [1], [1], { layers: 3 }],
    ['heads.to', [1], [1], { heads: { from: 3, to: 2 } }],
    ['group', [1], [1], { group: 1 }],
    ['group', [1], [1], { group: 'full' }],
  ];
  for (const [argument, source, destination, more] of cases) {
    invalid(argument, () => plan(source, destination, more));
    assert.is(plan([1], [2]).totalBytes, 2 * 2 * 4 * 8 * 16);
  }
  invalid('source', () => planTransfer({} as never, good, { sourceBlocks: [], destinationBlocks: [] }));
  invalid('destination', () => planTransfer(good, options() as never, { sourceBlocks: [], destinationBlocks: [] }));
  invalid('maxRecords', () => new TransferPlan(good, good).chunks({ sourceBlocks: [], destinationBlocks: [] }, 0));
  invalid('blocks', () => new TransferPlan(good, good).describe(undefined as never));
  assert.is(plan([], []).count, 0);
  assert.is(plan([1], [1], { layers: [7] }).count, 0);
});

test('sources that cannot fill a destination are refused', () => {
  const rank = (rank: number, layers = [0, 1]) =>
    layout((l) => Object.assign(l, { tensorParallel: { rank, size: 2 }, groups: [{ ...l.groups[0], layers }] }));
  mismatched('sources', () => transferSources(layout(), [rank(0)]));
  mismatched('sources', () => transferSources(layout(), [rank(0), rank(1, [0, 5])]));
  mismatched('groups[0].tensors.k.dtype', () =>
    transferSources(layout(), [layout((l) => (l.groups[0].tensors.k.dtype = 'float16'))]),
  );
  invalid('sources', () => transferSources(layout(), layout() as never));
  invalid('sources[1]', () => transferSources(layout(), [layout(), {} as never]));
  assert.is(transferSources(layout(), [rank(1), rank(0)]).length, 2);
});

test('tensors whose axes do not fit are refused', () => {
  const tensor = (change: Loose) =>
    fromTorch({
      axes: ['kv', 'block', 'token', 'head', 'element'],
      shape: [2, 10, 4, 8, 16],
      strides: [5120, 512, 128, 16, 1],
      dtype: 'float16',
      at: { segment: 0, offset: 0 },
      ...change,
    } as never);
  assert.is(tensor({}).localHeads, 8);
  const cases: [string, Loose][] = [
    ['axes', { axes: 'kv' }],
    ['axes', { axes: ['kv', 'block', 'token', 'element', 'head'] }],
    ['axes', { axes: ['kv', 'layer', 'token', 'head', 'element'] }],
    ['axes', { axes: ['kv', 'block', 'token', 'head', 'keyValue'] }],
    ['axes', { shape: [3, 10, 4, 8, 16] }],
    ['axes[1]', { axes: ['block', 'block', 'token', 'head', 'element'] }],
    ['axes[0]', { axes: ['q', 'block', 'token', 'head', 'element'] }],
    ['shape', { shape: [2, 10, 4, 8] }],
    ['shape[3]', { axes: ['kv', 'block', 'token', 'single', 'element'] }],
    ['shape[3]', { shape: [2, 10, 4, 0, 16] }],
    ['strides[0]', { strides: [-1, 512, 128, 16, 1] }],
    ['strides[4]', { strides: [5120, 512, 128, 1, 8] }],
    ['dtype', { dtype: 'torch.float16' }],
    ['keyElements', { axes: ['layer', 'block', 'token', 'head', 'keyValue'], keyElements: 16 }],
    ['blockSize', { axes: ['kv', 'block', 'layer', 'head', 'element'] }],
    ['blockSize', { blockSize: 16 }],
    ['at', { at: undefined }],
    ['at', { at: new Array(2 ** 32 - 1) }],
    ['at[1]', { at: [{ segment: 0, offset: 0 }, null] }],
    ['at.offset', { at: { segment: 0, offset: '0' } }],
    ['name', { axes: ['single', 'block', 'token', 'head', 'element'], shape: [1, 10, 4, 8, 16], name: {} }],
  ];
  for (const [argument, change] of cases) invalid(argument, () => tensor(change));
  invalid('heads', () => headRange(6, 0, 4));
  invalid('rank', () => headRange(8, 2, 2));
});

test('any value in any place is accepted or refused by name, and never breaks the core', () => {
  const paths: (string | number)[][] = [];
  const visit = (value: unknown, path: (string | number)[]) => {
    if (path.length > 0) paths.push(path);
    if (typeof value !== 'object' || value === null) return;
    for (const [key, inner] of Object.entries(value)) visit(inner, [...path, key]);
  };
  const make = (): Loose => ({
    layout: options(),
    blocks: {
      sourceBlocks: [1, 2],
      destinationBlocks: [3, 4],
      tokens: { from: 0, to: 8 },
      group: 0,
      layers: { from: 0, to: 2 },
      heads: { from: 0, to: 8 },
    },
  });
  visit(make(), []);
  const good = layout();
  let accepted = 0;
  const strange = fc.oneof(
    fc.anything({ withBigInt: true, withTypedArray: true, withNullPrototype: true, withSparseArray: true }),
    fc.integer({ min: 0, max: 9 }),
    fc.constantFrom(0, -1, 0.5, 2 ** 31, 2 ** 32, 2 ** 53, Number.NaN, Infinity, '', null, undefined, [], {}),
  );
  fc.assert(
    fc.property(fc.constantFrom(...paths), strange, (path, value) => {
      const input = make();
      const last = path.slice(1, -1).reduce((at, key) => at[key], path.length > 1 ? input[path[0]] : input);
      last[path[path.length - 1]] = value;
      try {
        planTransfer(new KvLayout(input.layout), good, input.blocks);
        accepted++;
      } catch (error) {
        assert.instance(error, MooncakeError, `${path.join('.')}: ${error}`);
        assert.type((error as MooncakeError).argument, 'string');
      }
    }),
    { numRuns: 3000, includeErrorInReport: true },
  );
  assert.ok(accepted > 20, `only ${accepted} accepted`);
  assert.is(planTransfer(good, good, { sourceBlocks: [1], destinationBlocks: [2] }).totalBytes, 2048);
});

test('descriptors are read only from what they are', () => {
  const good = layout();
  const { bytes, count } = planTransfer(good, good, { sourceBlocks: [1, 3], destinationBlocks: [2, 5] });
  const copy = new Descriptors(bytes.slice());
  assert.is(copy.count, count);
  assert.equal([...copy], [...new Descriptors(bytes)]);
  const changed = (at: number) => {
    const other = bytes.slice();
    other[at] ^= 1;
    return other;
  };
  invalid('descriptors', () => new Descriptors('bytes' as never));
  invalid('descriptors', () => new Descriptors(bytes.subarray(0, 31)));
  invalid('descriptors.magic', () => new Descriptors(changed(0)));
  invalid('descriptors.version', () => new Descriptors(changed(4)));
  invalid('descriptors.recordSize', () => new Descriptors(changed(6)));
  invalid('descriptors.count', () => new Descriptors(changed(8)));
  invalid('descriptors.count', () => new Descriptors(bytes.subarray(0, bytes.length - 32)));
  invalid('index', () => copy.at(count));
});

test.run();
