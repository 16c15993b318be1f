import fc from 'fast-check';
import {
  generateTrace,
  MooncakeError,
  parseTrace,
  readTrace,
  type Trace,
  TraceBuilder,
  type TraceRequest,
} from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const encode = (text: string) => new TextEncoder().encode(text);
const parse = (text: string) => parseTrace([encode(text)]);
const line = (fields: object = {}) =>
  JSON.stringify({ timestamp: 0, input_length: 1024, output_length: 5, hash_ids: [7, 9], ...fields });

test('a trace becomes dense blocks in order of first appearance', async () => {
  const trace = await parse(`${line()}\n${line({ timestamp: 27.5, hash_ids: [7, 3, 4] })}\n`);
  assert.is(trace.requests, 2);
  assert.is(trace.unique, 4);
  assert.equal([...trace.blocks], [0, 1, 0, 2, 3]);
  assert.equal([...trace.offsets], [0, 2, 5]);
  assert.equal([...trace.timestamps], [0, 27.5]);
  assert.equal([...trace.inputLengths], [1024, 1024]);
  assert.equal([...trace.outputLengths], [5, 5]);
});

test('block hashes are splitmix64 of the ids', async () => {
  const mask = (1n << 64n) - 1n;
  const splitmix = (id: number) => {
    let z = (BigInt(id) + 0x9e3779b97f4a7c15n) & mask;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
    return z ^ (z >> 31n);
  };
  // The generator's first output for seed 0.
  assert.is(splitmix(0), 0xe220a8397b1dcdafn);
  const ids = [0, 1, 182789, 0xffffffff, 0x100000000, Number.MAX_SAFE_INTEGER, 0x80e8_2f1b_76f9];
  const trace = await parse(line({ hash_ids: ids }));
  assert.equal([...trace.hashes], ids.map(splitmix));
  assert.equal([...trace.chains], ids.map(splitmix));
});

test('CRLF, blank lines, a byte-order mark and a last line without newline are accepted', async () => {
  const whole = await parse(`${line()}\n${line({ timestamp: 1 })}\n`);
  for (const text of [
    `${line()}\r\n${line({ timestamp: 1 })}\r\n`,
    `${line()}\n\n   \n${line({ timestamp: 1 })}`,
    `\ufeff${line()}\n${line({ timestamp: 1 })}`,
  ]) {
    assert.equal(await parse(text), whole);
  }
});

test('how the bytes are cut into chunks does not matter', async () => {
  const text = `${line()}\n${line({ note: 'é😀' })}\r\n\n${line({ hash_ids: [7] })}`;
  const whole = await parse(text);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: encode(text).length }), { maxLength: 6 }), async (cuts) => {
      const bytes = encode(text);
      const ends = [...cuts.sort((a, b) => a - b), bytes.length];
      const chunks = ends.map((end, at) => bytes.slice(at === 0 ? 0 : ends[at - 1], end));
      assert.equal(await parseTrace(chunks), whole);
    }),
  );
});

const REFUSED: [name: string, text: string, line: number, message: RegExp][] = [
  ['an empty file', '', 0, /no request/],
  ['blank lines alone', '\n\n', 2, /no request/],
  ['no JSON', `${line()}\nhello`, 2, /not JSON.*"hello"/],
  ['half a line', line().slice(0, 30), 1, /not JSON/],
  ['an array', '[1]', 1, /must be a JSON object, got an array of 1/],
  ['null', 'null', 1, /must be a JSON object, got null/],
  ['a falsy value', '0', 1, /must be a JSON object, got 0/],
  ['a missing field', '{"timestamp":0,"input_length":1,"hash_ids":[]}', 1, /output_length is missing/],
  ['a timestamp that is text', line({ timestamp: '0' }), 1, /timestamp must be .*got "0"/],
  ['a negative timestamp', line({ timestamp: -1 }), 1, /timestamp must be .*got -1/],
  ['time that runs back', `${line({ timestamp: 5 })}\n${line({ timestamp: 4 })}`, 2, /at least the previous.*got 4/],
  ['a negative length', line({ input_length: -5 }), 1, /input_length must be .*got -5/],
  ['a length that is no integer', line({ output_length: 1.5 }), 1, /output_length must be .*got 1.5/],
  ['an absurd length', line({ input_length: 2 ** 32 }), 1, /input_length must be .*got 4294967296/],
  ['ids that are no array', line({ hash_ids: '1,2' }), 1, /hash_ids must be .*got "1,2"/],
  ['a negative id', line({ hash_ids: [1, -2] }), 1, /hash_ids\[1\] must be .*got -2/],
  ['an id beyond 2^53', line({ hash_ids: [2 ** 53] }), 1, /hash_ids\[0\] must be .*got 9007199254740992/],
  ['an id that is text', line({ hash_ids: ['1'] }), 1, /hash_ids\[0\] must be .*got "1"/],
  ['an id that is null', line({ hash_ids: [null] }), 1, /hash_ids\[0\] must be .*got null/],
  [
    'an id under two parents',
    `${line()}\n${line({ hash_ids: [8, 9] })}`,
    2,
    /= 9 follows 8 here and follows 7 on line 1/,
  ],
  [
    'an id at two depths',
    `${line()}\n${line({ hash_ids: [9] })}`,
    2,
    /= 9 starts a prompt here and follows 7 on line 1/,
  ],
  ['an id twice in a prompt', line({ hash_ids: [4, 4] }), 1, /= 4 follows 4 here and starts a prompt on line 1/],
];

for (const [name, text, number, message] of REFUSED) {
  test(`refused with its line: ${name}`, async () => {
    const error = await refused(parse(text));
    assert.is(error.code, 'ERR_TRACE');
    assert.is(error.argument, `line ${number}`);
    assert.match(error.message, message);
  });
}

test('a refused request leaves nothing behind in the builder', () => {
  const request = (...hash_ids: number[]) => ({ timestamp: 0, input_length: 1, output_length: 1, hash_ids });
  const builder = new TraceBuilder();
  const expected = new TraceBuilder();
  for (const add of [builder, expected]) add.add(request(1, 2), 1);
  for (const wrong of [request(1, 2, 3, 4, -1), request(5, 6, 2), { ...request(7), output_length: -1 }, null, 'x']) {
    assert.throws(
      () => builder.add(wrong as TraceRequest, 2),
      (error: MooncakeError) => error.code === 'ERR_TRACE',
    );
  }
  // 3, 5 and 6 may stand anywhere still.
  for (const add of [builder, expected]) add.add(request(1, 6, 3, 5), 3);
  assert.equal(builder.build(), expected.build());
});

test('chunks, paths and options of a wrong type are refused by name', async () => {
  const wrong: [argument: string, call: () => Promise<unknown>][] = [
    ['chunks', () => parseTrace(undefined as never)],
    ['chunks', () => parseTrace(5 as never)],
    ['chunks', () => parseTrace(line() as never)],
    ['chunks[1]', () => parseTrace([encode(line()), line()] as never)],
    ['chunks[0]', () => parseTrace([new Uint16Array(4)] as never)],
    ['path', () => readTrace(5 as never)],
    ['path', () => readTrace('a\0b')],
    ['options', () => readTrace('-', null as never)],
    ['signal', () => readTrace('-', { signal: 5 as never })],
  ];
  for (const [argument, call] of wrong) {
    const error = await refused(call());
    assert.is(error.code, 'ERR_INVALID_ARGUMENT');
    assert.is(error.argument, argument);
  }
});

test('gzip and bytes that are not text are refused', async () => {
  const gzip = await refused(parseTrace([Uint8Array.of(0x1f, 0x8b, 8, 0)]));
  assert.match(gzip.message, /line 1: the file is gzip/);
  const binary = await refused(parseTrace([encode(`${line()}\n`), Uint8Array.of(0xff, 0xfe, 0x0a)]));
  assert.match(binary.message, /line 2: not UTF-8/);
});

test('a line without end and a prompt without end are refused', async () => {
  const chunk = new Uint8Array(1 << 22).fill(0x20);
  const endless = await refused(parseTrace(Array(9).fill(chunk)));
  assert.match(endless.message, /line 1: longer than 33554432 bytes/);
  const ids = Array.from({ length: 2 ** 20 + 1 }, (_, id) => id);
  assert.match(
    (await refused(parse(line({ hash_ids: ids })))).message,
    /hash_ids.length must be at most 1048576, got 1048577/,
  );
});

test('any text is a trace or is refused with ERR_TRACE', async () => {
  const field = fc.oneof(fc.jsonValue(), fc.array(fc.nat({ max: 4 }), { maxLength: 3 }), fc.nat());
  const request = fc.record(
    { timestamp: field, input_length: field, output_length: field, hash_ids: field },
    { requiredKeys: [] },
  );
  const text = fc.array(
    fc.oneof(
      request.map((value) => JSON.stringify(value)),
      fc.string(),
    ),
    { maxLength: 4 },
  );
  await fc.assert(
    fc.asyncProperty(text, async (lines) => {
      let trace: Trace;
      try {
        trace = await parse(lines.join('\n'));
      } catch (error) {
        assert.is((error as MooncakeError).code, 'ERR_TRACE');
        return;
      }
      assert.ok(trace.requests > 0);
    }),
    { numRuns: 500 },
  );
});

test('a file that cannot be read is named', async () => {
  const error = await refused(readTrace('no-such-trace.jsonl'));
  assert.is(error.code, 'ERR_INVALID_ARGUMENT');
  assert.match(error.message, /FILE must be a readable trace \(ENOENT\), got "no-such-trace.jsonl"/);
});

test('generated traces: the seed decides, prompts grow, full blocks come back', () => {
  const options = { sessions: 20, turns: 5, system: 1024, seed: 3 };
  const trace = generateTrace(options);
  assert.equal(generateTrace(options), trace);
  assert.not.equal([...generateTrace({ ...options, seed: 4 }).blocks], [...trace.blocks]);
  for (let request = 0; request < trace.requests; request++) {
    const blocks = trace.offsets[request + 1] - trace.offsets[request];
    assert.is(blocks, Math.ceil(trace.inputLengths[request] / 512));
    // The two full blocks of the system prompt are common to all sessions.
    assert.equal([...trace.blocks.slice(trace.offsets[request], trace.offsets[request] + 2)], [0, 1]);
  }
  assert.ok(trace.unique < trace.blocks.length / 2);
});

test('workload options out of range are refused by name', () => {
  for (const [name, value] of [
    ['sessions', 0],
    ['turns', -1],
    ['system', 1.5],
    ['seed', 'x'],
    ['input', 1e9],
    ['sessions', 1e6],
    ['sessions', 200_000],
  ] as const) {
    try {
      generateTrace({ [name]: value });
      assert.unreachable();
    } catch (error) {
      assert.is((error as MooncakeError).code, 'ERR_INVALID_ARGUMENT');
      assert.is((error as MooncakeError).argument, name);
    }
  }
});

async function refused(promise: Promise<unknown>): Promise<MooncakeError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, MooncakeError);
    return error as MooncakeError;
  }
  throw new Error('nothing was thrown');
}

test.run();
