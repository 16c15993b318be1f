// Mooncake's data stream, byte for byte as it is documented, against each data plane: versions 1 and 2, and what is refused.
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../support/descriptors.js';
import { create, frame, PLANES, placeOf, request, serve, talk } from '../support/engines.js';
import { sleep } from './support.js';

const DONE = '000000005654434d';
const REJECTED = '010000005654434d';
const READ = 0;
const WRITE = 1;
const V2 = 0x80;

for (const plane of PLANES) {
  test(`${plane.name}: serves reads and writes of version 2, several on one connection`, async () => {
    const engine = await create(plane);
    const { memory, address } = await engine.register(pattern(100_000));
    const expected = memory.slice();
    const read = await talk(engine.name, request(READ | V2, address + 5n, 70_000n), 70_008);
    assert.is(read.subarray(0, 8).toString('hex'), DONE);
    assert.is(Buffer.compare(read.subarray(8), expected.subarray(5, 70_005)), 0);
    const data = pattern(1000, 99);
    const both = Buffer.concat([
      request(WRITE | V2, address + 17n, 1000n),
      data,
      request(READ | V2, address + 16n, 1002n),
      request(WRITE | V2, address, 1n),
      Buffer.from([0xee]),
    ]);
    const answer = await talk(engine.name, both, 8 + 8 + 1002 + 8);
    expected.set(data, 17);
    assert.is(answer.subarray(0, 16).toString('hex'), DONE + DONE);
    assert.is(Buffer.compare(answer.subarray(16, 1018), expected.subarray(16, 1018)), 0);
    assert.is(answer.subarray(1018).toString('hex'), DONE);
    expected[0] = 0xee;
    assert.is(Buffer.compare(memory, expected), 0);
    await engine.close();
  });

  test(`${plane.name}: serves version 1, which has no status`, async () => {
    const engine = await create(plane);
    const { memory, address } = await engine.register(pattern(100_000));
    const read = await talk(engine.name, request(READ, address, 100_000n), 100_000);
    assert.is(Buffer.compare(read, pattern(100_000)), 0);
    const order = Buffer.concat([request(WRITE, address + 1n, 3n), Buffer.from([7, 8, 9]), request(READ, address, 5n)]);
    const answer = await talk(engine.name, order, 5);
    const expected = pattern(100_000);
    expected.set([7, 8, 9], 1);
    assert.is(Buffer.compare(answer, expected.subarray(0, 5)), 0);
    assert.is(Buffer.compare(memory, expected), 0);
    await engine.close();
  });

  test(`${plane.name}: a request of one byte at a time is one`, async () => {
    const engine = await create(plane);
    const { address, memory } = await engine.register(new Uint8Array(4096));
    const socket = connect({ ...placeOf(engine.name), noDelay: true });
    const answered = new Promise<string>((resolve) => socket.once('data', (bytes) => resolve(bytes.toString('hex'))));
    for (const byte of Buffer.concat([request(WRITE | V2, address, 3n), Buffer.from([1, 2, 3])])) {
      socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.is(await answered, DONE);
    assert.equal(memory.slice(0, 4), Uint8Array.of(1, 2, 3, 0));
    socket.destroy();
    await engine.close();
  });

  test(`${plane.name}: what may not be asked for is rejected, the connection closed, and nothing touched`, async () => {
    const engine = await create(plane);
    const first = await engine.allocate(4096);
    const second = await engine.allocate(4096, { access: 'read' });
    const gone = await engine.allocate(4096);
    await engine.unregister(gone.id);
    const end = first.address + 4096n;
    const cases: [string, number, bigint, bigint][] = [
      ['below', READ, first.address - 1n, 8n],
      ['beyond', READ, end - 7n, 8n],
      ['far away', READ, 0x1000n, 8n],
      ['no bytes', READ, first.address, 0n],
      ['all bytes', READ, first.address, (1n << 47n) - 1n],
      ['past 64 bits', READ, (1n << 47n) - 8n, (1n << 48n) - 1n],
      ['another opcode', 2, first.address, 8n],
      ['taken away', READ, gone.address, 8n],
      ['write beyond', WRITE, end - 7n, 8n],
      ['write what may be read only', WRITE, second.address, 8n],
    ];
    for (const [what, opcode, address, size] of cases) {
      const payload = Buffer.alloc(8, 0x5a);
      const answer = await talk(engine.name, Buffer.concat([request(opcode, address, size), payload]));
      assert.is(answer.length, 0, `${what}, version 1`);
      const status = await talk(engine.name, Buffer.concat([request(opcode | V2, address, size), payload]));
      // Sizes of 0 and opcodes that are none may end a connection before it has shown its version.
      const hex = status.toString('hex');
      assert.ok(hex === REJECTED || hex === '', `${what}, version 2: ${hex}`);
    }
    // A good request behind a bad one is not served.
    const late = Buffer.concat([request(READ | V2, 0x1000n, 8n), request(READ | V2, first.address, 8n)]);
    const hex = (await talk(engine.name, late)).toString('hex');
    assert.ok(hex === REJECTED || hex === '', hex);
    assert.ok([...first.memory, ...second.memory, ...gone.memory].every((byte) => byte === 0));
    assert.is(await engine.probe(engine.name), true);
    await engine.close();
  });

  test(`${plane.name}: a write that is cut off holds its segment no longer`, async () => {
    const engine = await create(plane);
    const { id, memory, address } = await engine.allocate(1 << 20);
    const socket = connect(placeOf(engine.name));
    socket.on('error', () => {});
    socket.write(request(WRITE | V2, address, 1n << 20n));
    socket.write(new Uint8Array(1000).fill(3));
    while (memory[999] !== 3) await sleep(5);
    socket.destroy();
    await engine.unregister(id);
    assert.is(memory[1000], 0);
    await engine.close();
  });

  test(`${plane.name}: reads and writes a peer of version 1 or 2 by the documented bytes`, async () => {
    for (const version of [1, 2]) {
      const store = pattern(1 << 16, 5);
      const base = 0x7000_0000_0000n;
      const seen: number[] = [];
      // A peer of the test's own: one request at a time, each byte of a header in its place.
      const { name, server } = await serve((socket) => {
        let had = Buffer.alloc(0);
        socket.on('data', (bytes) => {
          had = Buffer.concat([had, bytes]);
          while (had.length >= 24) {
            if (had[14] !== 0) {
              const descriptor = {
                name,
                protocol: 'tcp',
                tcp_data_port: Number(name.split(':')[1]),
                tcp_proto_version: version === 1 ? undefined : 2,
                buffers: [{ name, addr: Number(base), length: store.length }],
              };
              socket.end(frame(1, JSON.stringify(descriptor)));
              return;
            }
            const [size, address, opcode] = [Number(had.readBigUInt64LE()), had.readBigUInt64LE(8), had[16]];
            const at = Number(address - base);
            const write = (opcode & 1) === 1;
            if (write && had.length < 24 + size) return;
            seen.push(opcode);
            const status = opcode & V2 ? Buffer.from(DONE, 'hex') : Buffer.alloc(0);
            if (write) store.set(had.subarray(24, 24 + size), at);
            socket.write(write ? status : Buffer.concat([status, store.subarray(at, at + size)]));
            had = had.subarray(write ? 24 + size : 24);
          }
        });
      });
      const engine = await create(plane);
      const ours = await engine.allocate(1 << 16);
      const peer = await engine.open(name);
      await engine.read(peer, one(peer.segments[0].id, 100, ours.id, 0, 50_000));
      assert.is(Buffer.compare(ours.memory.subarray(0, 50_000), pattern(1 << 16, 5).subarray(100, 50_100)), 0);
      ours.memory.fill(version);
      await engine.write(peer, one(ours.id, 0, peer.segments[0].id, 3, 40_000));
      assert.ok(store.subarray(3, 40_003).every((byte) => byte === version));
      assert.ok(seen.every((opcode) => (version === 1 ? opcode < 2 : opcode >= V2)));
      await engine.close();
      server.close();
    }
  });

  test(`${plane.name}: peers that answer wrongly, or not at all, end the batch and leave the memory alone after it`, async () => {
    const base = 4096n;
    const answers: [what: string, bytes: Buffer | undefined, codes: string[]][] = [
      ['rejection', Buffer.from(REJECTED, 'hex'), ['ERR_SEGMENT', 'ERR_PEER']],
      ['no status', Buffer.from('ffffffffffffffff', 'hex'), ['ERR_PROTOCOL', 'ERR_PEER']],
      ['half the data', Buffer.concat([Buffer.from(DONE, 'hex'), Buffer.alloc(50)]), ['ERR_PEER', 'ERR_TIMEOUT']],
      ['silence', undefined, ['ERR_TIMEOUT', 'ERR_PEER']],
    ];
    for (const [what, bytes, codes] of answers) {
      const { name, server } = await serve((socket) => {
        socket.on('data', (data) => {
          if (data.length === 24 && data[14] === 0) {
            if (bytes) what === 'half the data' ? socket.write(bytes) : socket.end(bytes);
            return;
          }
          const json = { name, protocol: 'tcp', tcp_data_port: Number(name.split(':')[1]), tcp_proto_version: 2 };
          socket.end(frame(1, JSON.stringify({ ...json, buffers: [{ name, addr: Number(base), length: 4096 }] })));
        });
      });
      const engine = await create(plane);
      const ours = await engine.allocate(4096);
      const peer = await engine.open(name);
      const error = await engine.read(peer, one(0, 0, ours.id, 0, 100), { timeoutMs: 1500 }).catch((reason) => reason);
      assert.ok(codes.includes(error?.code), `${what}: ${error?.code} ${error?.message}`);
      const after = ours.memory.slice();
      await sleep(20);
      assert.equal(ours.memory, after);
      await engine.close();
      server.close();
    }
  });
}

test.run();
