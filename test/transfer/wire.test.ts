// Bytes from anybody: what is no frame of ours closes its connection with a typed reason, and nothing else.
import { connect, type Socket } from 'node:net';
import fc from 'fast-check';
import { crc64, type MooncakeError, type Peer, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';

// Written after docs/transfer.md, not with the package's own code.
const HELLO = 1;
const GOODBYE = 3;
const CALL = 4;
const ANSWER = 5;
const FAILURE = 6;
const CANCEL = 7;
const READ = 8;
const READ_DATA = 9;
const WRITE = 10;
const WRITE_DATA = 11;
const DONE = 12;

interface Fields {
  length?: number;
  flags?: number;
  id?: number;
  value?: number;
  sum?: bigint;
}

function frame(type: number, payload: Uint8Array = new Uint8Array(0), fields: Fields = {}): Buffer {
  const head = Buffer.alloc(32);
  head.writeUInt32LE(fields.length ?? payload.length, 0);
  head[4] = type;
  head[5] = fields.flags ?? (payload.length > 0 ? 1 : 0);
  head.writeUInt32LE(fields.id ?? 0, 8);
  head.writeUInt32LE(fields.value ?? 0, 12);
  head.writeBigUInt64LE(fields.sum ?? (payload.length > 0 ? crc64(payload) : 0n), 16);
  head.writeBigUInt64LE(crc64(head.subarray(0, 24)), 24);
  return Buffer.concat([head, payload]);
}

const PREAMBLE = Buffer.from([0x4d, 0x4b, 0x54, 0x58, 1, 0, 32, 0]);

/** msgpack by hand: strings of at most 255 bytes and whole numbers. */
function packed(entries: Record<string, string | number>): Buffer {
  const parts: number[] = [0x80 | Object.keys(entries).length];
  const text = (value: string) => parts.push(0xd9, Buffer.byteLength(value), ...Buffer.from(value));
  for (const [key, value] of Object.entries(entries)) {
    text(key);
    if (typeof value === 'string') text(value);
    else parts.push(0xce, (value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
  }
  return Buffer.from(parts);
}

const good = { generation: '0123456789abcdef', address: 'tcp://h:1', maxFrameBytes: 2 ** 20, heartbeatMs: 60_000 };
const HELLOED = Buffer.concat([PREAMBLE, frame(HELLO, packed(good))]);

const SEGMENT_BYTES = 1000;

/** A transfer under attack, and an honest peer that must not feel it. */
async function besieged(work: (port: number, reasons: MooncakeError[], memory: Uint8Array) => Promise<void>) {
  const reasons: MooncakeError[] = [];
  const transfer = await TcpTransfer.listen({ onLost: (reason) => reasons.push(reason) });
  const memory = pattern(SEGMENT_BYTES);
  transfer.register(memory);
  transfer.register(pattern(SEGMENT_BYTES), { access: 'read' });
  transfer.serve('echo', (message) => message);
  const honest = await TcpTransfer.listen();
  const peer = await honest.connect(transfer.address);
  const check = async (who: Peer) => assert.is(await who.call('echo', 'well'), 'well');
  await check(peer);
  await work(Number(transfer.address.split(':').pop()), reasons, memory);
  await check(peer);
  await Promise.all([transfer.close(), honest.close()]);
}

/** Sends bytes; all that came back when the other side has closed (or does not), or when `enough` says so. */
function attack(port: number, bytes: Uint8Array, enough?: (answer: Buffer) => boolean): Promise<Buffer> {
  return new Promise((resolve) => {
    let answer = Buffer.alloc(0);
    const socket: Socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', (chunk) => {
      answer = Buffer.concat([answer, chunk]);
      if (enough?.(answer)) socket.destroy();
    });
    socket.on('error', () => {});
    const patience = setTimeout(() => socket.destroy(), 4000);
    socket.on('close', () => {
      clearTimeout(patience);
      resolve(answer);
    });
  });
}

const call = (message: Uint8Array, service = 'echo') =>
  Buffer.concat([Buffer.from([service.length]), Buffer.from(service), message]);

const array = (count: number) =>
  Buffer.from([0xdd, count >>> 24, (count >>> 16) & 255, (count >>> 8) & 255, count & 255]);

const after = (...frames: Buffer[]) => Buffer.concat([HELLOED, ...frames]);
const batch = one(0, 0, 0, 0, 10).bytes;
const broken = (at: number, value: number) => {
  const bytes = batch.slice();
  bytes[at] = value;
  return bytes;
};

const VIOLATIONS: Record<string, Buffer> = {
  'another protocol': Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
  'another version': Buffer.concat([Buffer.from([0x4d, 0x4b, 0x54, 0x58, 2, 0, 32, 0]), frame(HELLO, packed(good))]),
  'a call before the hello': Buffer.concat([PREAMBLE, frame(CALL, call(Buffer.from([1])))]),
  'data before the hello': Buffer.concat([PREAMBLE, frame(WRITE_DATA, Buffer.alloc(10))]),
  'a second hello': after(frame(HELLO, packed(good))),
  'a hello larger than one may be': Buffer.concat([PREAMBLE, frame(HELLO, Buffer.alloc(5000))]),
  'a hello without a generation': Buffer.concat([PREAMBLE, frame(HELLO, packed({ ...good, generation: 'x' }))]),
  'a hello whose limit is none': Buffer.concat([PREAMBLE, frame(HELLO, packed({ ...good, maxFrameBytes: 1 }))]),
  'a hello that is no object': Buffer.concat([PREAMBLE, frame(HELLO, Buffer.from([0xc0]))]),
  'a header with a wrong checksum': after(Buffer.alloc(32, 7)),
  'an unknown type': after(frame(77)),
  'a frame that claims 4 GiB': after(frame(CALL, undefined, { length: 0xffff_ffff, flags: 1 })),
  'a piece that claims 1 MiB': after(frame(WRITE, batch), frame(WRITE_DATA, undefined, { length: 2 ** 20 })),
  'an empty piece': after(frame(WRITE, batch), frame(WRITE_DATA)),
  'a control frame without a sum': after(frame(CALL, call(Buffer.from([1])), { flags: 0 })),
  'a control frame with a wrong sum': after(frame(CALL, call(Buffer.from([1])), { sum: 5n })),
  'a call shorter than its name': after(frame(CALL, Buffer.from([200, 65]))),
  'a service name that is not UTF-8': after(frame(CALL, Buffer.from([1, 0xff, 1]))),
  'a call without a message': after(frame(CALL, call(Buffer.alloc(0)))),
  'a message with bytes after it': after(frame(CALL, call(Buffer.from([1, 1])))),
  'an array of 4 billion': after(frame(CALL, call(array(0xffff_ffff)))),
  'an extension type': after(frame(CALL, call(Buffer.from([0xd6, 0xff, 0, 0, 0, 0])))),
  'a map whose key is a number': after(frame(CALL, call(Buffer.from([0x81, 1, 1])))),
  'a string longer than the frame': after(frame(CALL, call(Buffer.from([0xdb, 0x7f, 0, 0, 0, 65])))),
  'arrays nested without end': after(frame(CALL, call(Buffer.alloc(100_000, 0x91)))),
  'an answer to nothing': after(frame(ANSWER, Buffer.from([1]), { id: 9 })),
  'the end of nothing': after(frame(DONE, undefined, { id: 9 })),
  'the failure of nothing': after(
    frame(FAILURE, Buffer.from([0x93, 0xa5, 69, 82, 82, 95, 88, 0xa1, 120, 0xc0]), { id: 9 }),
  ),
  'a failure without a code': after(frame(FAILURE, Buffer.from([0x90]))),
  'data of a read that was not asked for': after(frame(READ_DATA, Buffer.alloc(10))),
  'data of a write that was not announced': after(frame(WRITE_DATA, Buffer.alloc(10))),
  'more data than announced': after(frame(WRITE, batch, { flags: 3 }), frame(WRITE_DATA, Buffer.alloc(11))),
  'data out of order': after(frame(WRITE, batch, { flags: 3 }), frame(WRITE_DATA, Buffer.alloc(5), { value: 1 })),
  'data without the sums that were promised': after(
    frame(WRITE, batch, { flags: 3 }),
    frame(WRITE_DATA, Buffer.alloc(5), { flags: 0 }),
  ),
  'descriptors of another magic': after(frame(READ, broken(0, 1))),
  'descriptors of another version': after(frame(READ, broken(4, 2))),
  'descriptors with a lying count': after(frame(READ, broken(8, 2))),
  'a write of 2 ** 64 bytes': after(frame(WRITE, broken(63, 0xff))),
  'more records than a frame may have': after(
    frame(
      READ,
      new Uint8Array(32 * 16_386).map((_, i) => (i < 8 ? batch[i] : i === 8 ? 1 : i === 9 ? 0x40 : 0)),
    ),
  ),
  'more writes at a time than may be': after(
    ...Array.from({ length: 16_385 }, (_, id) => frame(WRITE, batch, { id, flags: 3, value: 60_000 })),
  ),
  'a number used twice': after(
    frame(WRITE, batch, { id: 5, flags: 3, value: 9999 }),
    frame(READ, batch, { id: 5, value: 9999 }),
  ),
};

for (const [name, bytes] of Object.entries(VIOLATIONS)) {
  test(`${name}: the connection is closed with ERR_PROTOCOL`, () =>
    besieged(async (port, reasons, memory) => {
      await attack(port, bytes);
      assert.equal(
        reasons.map(({ code }) => code),
        ['ERR_PROTOCOL'],
      );
      assert.equal(memory, pattern(SEGMENT_BYTES), 'nothing was written');
    }));
}

/** Types of the frames in an answer, after the preamble. */
function types(answer: Buffer): number[] {
  const found: number[] = [];
  for (let at = 8; at + 32 <= answer.length; at += 32 + answer.readUInt32LE(at)) found.push(answer[at + 4]);
  return found;
}

test('refusals that leave the connection open: ranges, segments, access, services; requests answered once', () =>
  besieged(async (port, reasons, memory) => {
    const data = Buffer.alloc(10, 1);
    const bytes = after(
      frame(READ, one(0, 991, 0, 0, 10).bytes, { id: 1, value: 1000 }),
      frame(READ, one(7, 0, 0, 0, 10).bytes, { id: 2, value: 1000 }),
      // Refused writes: the data that follows is taken and dropped, or cancelled.
      frame(WRITE, one(0, 0, 1, 0, 10).bytes, { id: 3, flags: 3, value: 1000 }),
      frame(WRITE_DATA, data, { id: 3 }),
      frame(WRITE, one(0, 0, 0, 2 ** 52, 10).bytes, { id: 4, flags: 3, value: 1000 }),
      frame(CANCEL, undefined, { id: 4 }),
      frame(CALL, call(Buffer.from([1]), 'none'), { id: 5, value: 1000 }),
      frame(CANCEL, undefined, { id: 999 }),
      // A write whose sum is wrong, one whose sum is right, and a read of it.
      frame(WRITE, one(0, 0, 0, 0, 10).bytes, { id: 6, flags: 3, value: 1000 }),
      frame(WRITE_DATA, data, { id: 6, sum: 1n }),
      frame(WRITE, one(0, 0, 0, 0, 10).bytes, { id: 7, flags: 3, value: 1000 }),
      frame(WRITE_DATA, data, { id: 7 }),
      frame(READ, one(0, 0, 0, 0, 10).bytes, { id: 8, flags: 3, value: 1000 }),
    );
    const wanted = [HELLO, FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, DONE, READ_DATA, DONE];
    const answer = await attack(port, bytes, (sofar) => types(sofar).filter((t) => t !== 2).length >= wanted.length);
    const got = types(answer).filter((type) => type !== 2);
    assert.equal([...got].sort(), [...wanted].sort());
    assert.is(got.indexOf(READ_DATA) > got.indexOf(DONE), true, 'in the order of their work');
    assert.equal(memory.subarray(0, 10), new Uint8Array(10).fill(1));
    assert.equal(memory.subarray(10), pattern(SEGMENT_BYTES).subarray(10));
    assert.ok(reasons.every(({ code }) => code === 'ERR_PEER'));
  }));

test('memory is held until the socket is done with it, also after the reader has given up', async () => {
  const transfer = await TcpTransfer.listen();
  const memory = new Uint8Array(32 * 2 ** 20).fill(7);
  const id = transfer.register(memory);
  const cancelled = new Promise<void>((resolve) => transfer.serve('cancelled', () => resolve()));
  const socket = connect(Number(transfer.address.split(':').pop()), '127.0.0.1');
  // Nothing is read meanwhile, so that part of the data waits at the other side's socket.
  socket.write(after(frame(READ, one(id, 0, 0, 0, memory.length).bytes, { id: 1, flags: 3, value: 60_000 })));
  await new Promise((resolve) => setTimeout(resolve, 200));
  socket.write(Buffer.concat([frame(CANCEL, undefined, { id: 1 }), frame(CALL, call(Buffer.from([1]), 'cancelled'))]));
  await cancelled;
  const given = transfer.unregister(id).then(() => memory.fill(9));
  await new Promise((resolve) => setTimeout(resolve, 50));
  let wrong = 0;
  const seen = new Set<number>();
  await new Promise<void>((resolve) => {
    let rest = Buffer.alloc(0);
    let at = 8;
    socket.on('data', (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = 0; at + 32 <= rest.length; at = end) {
        end = at + 32 + rest.readUInt32LE(at);
        if (end > rest.length) break;
        seen.add(rest[at + 4]);
        const sum = rest.readBigUInt64LE(at + 16);
        if (rest[at + 4] === READ_DATA && crc64(rest.subarray(at + 32, end)) !== sum) wrong++;
      }
      rest = rest.subarray(at);
      at = 0;
      if (seen.has(ANSWER)) resolve();
    });
  });
  assert.ok(seen.has(READ_DATA) && seen.has(FAILURE));
  assert.is(wrong, 0, 'pieces of whoever had the memory next');
  await given;
  socket.destroy();
  await transfer.close();
});

test('memory is held no longer than a reader lives, or may take to read what is left', async () => {
  for (const leaves of [true, false]) {
    const transfer = await TcpTransfer.listen({ heartbeatMs: 10, deadAfterMs: 20 });
    const memory = new Uint8Array(32 * 2 ** 20);
    const id = transfer.register(memory);
    const socket = connect(Number(transfer.address.split(':').pop()), '127.0.0.1');
    const asked = new Promise<void>((resolve) => transfer.serve('asked', () => resolve()));
    const read = frame(READ, one(id, 0, 0, 0, memory.length).bytes, { id: 1, flags: 3, value: leaves ? 60_000 : 100 });
    socket.on('error', () => {});
    socket.write(after(read, frame(CALL, call(Buffer.from([1]), 'asked'))));
    await asked;
    const unregistered = transfer.unregister(id);
    if (leaves) setTimeout(() => socket.destroy(), 100);
    await unregistered;
    socket.destroy();
    await transfer.close();
  }
});

test('random bytes, and random changes to a good conversation', () =>
  besieged(async (port, reasons) => {
    const conversation = after(
      frame(CALL, call(Buffer.from([1])), { id: 1, value: 1000 }),
      frame(READ, batch, { id: 2, flags: 3, value: 1000 }),
      frame(WRITE, batch, { id: 3, flags: 3, value: 1000 }),
      frame(WRITE_DATA, Buffer.alloc(10), { id: 3 }),
      frame(GOODBYE),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array({ minLength: 40, maxLength: 400 }),
          fc.tuple(fc.nat(conversation.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
            const bytes = Uint8Array.from(conversation);
            bytes[at] ^= change;
            return bytes;
          }),
          // Good headers around random payloads reach further in.
          fc
            .array(fc.tuple(fc.integer({ min: 0, max: 14 }), fc.uint8Array({ maxLength: 80 }), fc.nat(3)), {
              maxLength: 6,
            })
            .map((frames) =>
              after(...frames.map(([type, payload, id]) => frame(type, payload, { id })), frame(GOODBYE)),
            ),
        ),
        async (bytes) => {
          await attack(port, bytes);
        },
      ),
      { numRuns: 300 },
    );
    for (const { code } of reasons) assert.ok(code === 'ERR_PROTOCOL' || code === 'ERR_PEER', code);
  }));

test('one who connects and says nothing, or never ends saying it, is closed', () =>
  besieged(async (port, reasons) => {
    await attack(port, new Uint8Array(0));
    assert.is(reasons.length, 1);
    assert.is(reasons[0].code, 'ERR_PEER');
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    let at = 0;
    const drip = setInterval(() => socket.write(HELLOED.subarray(at, ++at)), 300);
    await new Promise((resolve) => socket.on('close', resolve));
    clearInterval(drip);
    assert.is(reasons.length, 2);
    assert.match(reasons[1].message, /no hello/);
  }));

test.run();
