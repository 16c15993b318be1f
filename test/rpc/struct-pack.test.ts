import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { METHODS, type Method, type MethodName, pack, type Type, typeCode, unpack } from 'mooncake-ts/rpc';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { replicateConfig } from '../support/replicate-config.js';
import { payload } from './values.js';

const codes = JSON.parse(readFileSync(new URL('../vectors/rpc/codes_0_3_13.json', import.meta.url), 'utf8')) as {
  method: MethodName;
  id: string;
  argument: string | null;
  result: string;
}[];
const hex = (code: number) => code.toString(16).padStart(8, '0');
const from = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

test('ids and type codes are those of the stock master, for all 64 methods', () => {
  assert.is(codes.length, 64);
  assert.equal(codes.map((row) => row.method).sort(), Object.keys(METHODS).sort());
  for (const row of codes) {
    const { id, argumentCode, resultCode } = METHODS[row.method];
    assert.is(hex(id), row.id, row.method);
    assert.is(argumentCode === -1 ? null : hex(argumentCode), row.argument, row.method);
    assert.is(hex(resultCode), row.result, row.method);
  }
});

test('messages of the stock client and master, byte for byte', () => {
  const exist = { key: Buffer.from('hello'), tenant: 'default' };
  assert.equal(pack(METHODS.ExistKey.arguments!, exist), from('d81ef97c 05 68656c6c6f 07 64656661756c74'));
  assert.equal(unpack(METHODS.ExistKey.result, from('d200e890 01 01')), { ok: true, value: true });
  assert.equal(unpack(METHODS.ExistKey.result, from('d200e890 00 40fdffff')), { ok: false, error: -704 });
  const done = { ok: true, value: undefined } as const;
  assert.equal(pack(METHODS.Remove.result, done), from('cc6828af 01'));
  // The wheel writes its type literal into each message.
  assert.equal(unpack(METHODS.Remove.result, from('cd6828af 04 87fa01 00 01')), done);
  const start = {
    client: '00000000000000010000000000000002',
    key: Buffer.from('hello'),
    size: 23n,
    config: replicateConfig(),
    tenant: 'default',
  };
  const wire = from(`0ebd85e3 0100000000000000 0200000000000000 05 68656c6c6f 1700000000000000
    0100000000000000 0000000000000000 0000000000000000 00 00 00 00 00 00 00 00 00 00 07 64656661756c74`);
  assert.equal(pack(METHODS.PutStart.arguments!, start), wire);
  const answer = from(`a62739c4 01 01 0100000000000000 00 1700000000000000 0000007b0b7f0000
    03 746370 0f 3132372e302e302e313a3136323339 02000000`);
  const replica = {
    id: 1n,
    descriptor: {
      kind: 'memory' as const,
      value: { buffer: { size: 23n, address: 0x7f0b7b000000n, protocol: 'tcp', endpoint: '127.0.0.1:16239' } },
    },
    state: 2,
  };
  assert.equal(unpack(METHODS.PutStart.result, answer), { ok: true, value: [replica] });
  assert.equal(pack(METHODS.PutStart.result, { ok: true, value: [replica] }), answer);
});

test('the width of lengths follows the largest container of the message', () => {
  const query = METHODS.QuerySegmentStatus.arguments!;
  assert.equal(pack(query, { name: 'x'.repeat(300) }).subarray(0, 9), from('77facf9d 08 2c01 78 78'));
  const { arguments: keys } = METHODS.BatchExistKey;
  for (const [count, metainfo] of [
    [255, undefined],
    [256, 1 << 3],
    [65535, 1 << 3],
    [65536, 2 << 3],
  ] as const) {
    const offsets = Uint32Array.from({ length: count + 1 }, (_, i) => i);
    const message = pack(keys!, { keys: { bytes: new Uint8Array(count).fill(107), offsets }, tenant: 'default' });
    assert.is(message[0] & 1, metainfo === undefined ? 0 : 1);
    if (metainfo !== undefined) assert.is(message[4], metainfo);
    const read = unpack(keys!, message);
    assert.equal(read.keys.offsets, offsets);
    assert.is(read.tenant, 'default');
  }
  // Eight bytes for each length, which we never write.
  const wide = from('77facf9d 18 0300000000000000 616263');
  assert.equal(unpack(query, wide), { name: 'abc' });
});

test('values of every method are read and written as the format says, with lengths of any width', () => {
  for (const method of Object.values(METHODS) as unknown as Method<unknown, unknown>[]) {
    for (const type of [method.arguments, method.result]) {
      if (!type) continue;
      const message = (seed: number, width: number) => {
        const head = Buffer.alloc(width > 0 ? 5 : 4, width << 3);
        head.writeUInt32LE((typeCode(type) | (width > 0 ? 1 : 0)) >>> 0, 0);
        return Buffer.concat([head, payload(type.literal, seed, width)]);
      };
      fc.assert(
        fc.property(fc.nat(), fc.integer({ min: 0, max: 3 }), (seed, width) => {
          const came = message(seed, width);
          assert.equal(pack(type, unpack(type, came)), message(seed, 0), method.name);
          // Nothing but the whole message is a value.
          for (const cut of [1, 5, came.length >> 1]) {
            if (cut > 0 && cut <= came.length) refused(type, came.subarray(0, came.length - cut));
          }
          refused(type, Buffer.concat([came, Buffer.of(0)]));
        }),
        { numRuns: 30 },
      );
    }
  }
});

function refused(type: Type<unknown>, message: Uint8Array): void {
  assert.throws(
    () => unpack(type, message),
    (error: { code: string }) => error.code === 'ERR_PROTOCOL',
  );
}

test('random bytes and lying lengths are refused, and nothing is made for them', () => {
  const { arguments: args, result } = METHODS.BatchGetReplicaList;
  const head = (type: Type<never>, metainfo: number) => {
    const out = Buffer.alloc(5);
    out.writeUInt32LE((typeCode(type) | 1) >>> 0, 0);
    out[4] = metainfo;
    return out;
  };
  for (const type of [args!, result] as unknown as Type<never>[]) {
    // A length of 2^32 - 1, and of 2^64 - 1.
    refused(type, Buffer.concat([head(type, 2 << 3), from('ffffffff'), Buffer.alloc(64)]));
    refused(type, Buffer.concat([head(type, 3 << 3), from('ffffffffffffffff'), Buffer.alloc(64)]));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 255 }), (body, metainfo) => {
        try {
          unpack(type, Buffer.concat([head(type, metainfo), body]));
        } catch (error) {
          assert.is((error as { code: string }).code, 'ERR_PROTOCOL');
        }
      }),
      { numRuns: 2000 },
    );
  }
});

test.run();
