// Whoever can connect to the port may send what it likes: it is rejected and its connection closed, no memory changes, the
// process lives, and a peer that behaves is served before, meanwhile and after.
import { connect } from 'node:net';
import fc from 'fast-check';
import { TransferEngine } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { placed } from './bytes.js';
import { type Child, killAll, MIB, settles, start, withEngine } from './support.js';

const U64 = 2n ** 64n - 1n;
const TOP = 2n ** 63n;

test.after(killAll);

const probe = await TransferEngine.create();
await probe.close();
const planes = probe.accelerated ? [true, false] : [false];

function numbers(...values: (bigint | number)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  values.forEach((value, index) => {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * index);
  });
  return bytes;
}

/** Mooncake's data request: size, address, opcode (protocol version 2 pads it to 24 bytes). */
const request = (size: bigint, address: bigint, opcode: number) =>
  Buffer.concat([numbers(size, address), Buffer.from([opcode, 0, 0, 0, 0, 0, 0, 0])]);

/** Mooncake's handshake frame: length of what follows, type, JSON. */
const handshake = (length: bigint, type: number, text: string) =>
  Buffer.concat([numbers(length), Buffer.from([type]), Buffer.from(text)]);

/** Sends and waits until the other side closes, or for `quiet` ms of nothing; whether it closed. */
function send(name: string, chunks: readonly Uint8Array[], quiet = 300): Promise<{ closed: boolean; bytes: number }> {
  return new Promise((resolve) => {
    const socket = connect(Number(name.split(':').pop()), '127.0.0.1');
    let bytes = 0;
    let timer: NodeJS.Timeout;
    const end = (closed: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ closed, bytes });
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => end(false), quiet);
    };
    socket.on('data', (chunk) => {
      bytes += chunk.length;
      wait();
    });
    socket.on('error', () => {});
    socket.on('close', () => end(true));
    socket.on('connect', () => {
      for (const chunk of chunks) socket.write(chunk);
      wait();
    });
  });
}

/** A good peer, and that neither of the child's segments has changed. */
async function goodPeer(engine: TransferEngine, child: Child): Promise<void> {
  const peer = await engine.open(child.name);
  const ours = await engine.allocate(MIB);
  for (const [index, { id }] of peer.segments.entries()) {
    await settles('a read', engine.read(peer, one(id, 0, ours.id, 0, MIB)));
    assert.is(Buffer.compare(ours.memory, placed(MIB, index + 1)), 0, 'memory has changed');
  }
  await engine.unregister(ours.id);
  assert.is(child.process.exitCode, null);
}

for (const native of planes) {
  const options = { transports: ['tcp'], native };
  const plane = native ? 'native' : 'TypeScript';

  test(`${plane}: requests that name what is not there are closed`, () =>
    withEngine(options, async (engine) => {
      const child = await start({ engine: options });
      const peer = await engine.open(child.name);
      const { address } = peer.segments[0];
      const length = BigInt(MIB);
      const bad: [string, Buffer][] = [
        ['opcode 7', request(16n, address, 7)],
        ['opcode 255', request(16n, address, 255)],
        ['size 0', request(0n, address, 0)],
        ['size 0, write', request(0n, address, 1)],
        ['address 0', request(16n, 0n, 0)],
        ['before the segment', request(16n, address - 1n, 0)],
        ['behind the segment', request(16n, address + length, 0)],
        ['over its end', request(17n, address + length - 16n, 0)],
        ['over its end, write', request(17n, address + length - 16n, 1)],
        ['past 64 bits', request(U64 - address + 2n, address, 0)],
        ['past 64 bits, write', request(U64 - address + 2n, address, 1)],
        ['the whole address space', request(U64, 1n, 0)],
        ['an address past the end', request(16n, U64 - 7n, 0)],
        ['half of it', request(TOP, address, 1)],
      ];
      for (const [what, bytes] of bad) {
        const { closed } = await send(child.name, [bytes, Buffer.alloc(4096, 0xbb)], 10_000);
        assert.ok(closed, `${what}: the connection stays open`);
      }
      await goodPeer(engine, child);
      await child.kill();
    }));

  test(`${plane}: handshakes with lying lengths, no JSON, and types that there are not`, () =>
    withEngine(options, async (engine) => {
      const child = await start({ engine: options });
      const bad: Buffer[] = [
        handshake(U64, 1, '{}'),
        handshake(TOP, 1, '{}'),
        handshake(0n, 1, '{}'),
        handshake(1n << 32n, 1, '{"a":1}'),
        handshake(3n, 1, '{}{}{}{}{}{}{}{}'),
        handshake(3n, 200, '{}'),
        handshake(6n, 3, 'hello'),
        handshake(9n, 3, '{"name":'),
        handshake(3n, 3, '[]'),
        Buffer.concat([handshake(9n, 1, '{"a":"'), Buffer.from([0xff, 0xfe])]),
        handshake(BigInt(70_001), 3, `${'['.repeat(70_000)}`),
      ];
      for (const bytes of bad) await send(child.name, [bytes]);
      await goodPeer(engine, child);
      await child.kill();
    }));

  test(`${plane}: random bytes, and good beginnings with bad ends`, () =>
    withEngine(options, async (engine) => {
      const child = await start({ engine: options });
      const peer = await engine.open(child.name);
      const { address } = peer.segments[0];
      const beginning = fc.oneof(
        fc.constant(Buffer.alloc(0)),
        fc.constant(Buffer.from('MKTSDATA')),
        fc.constant(Buffer.concat([Buffer.from('MKTSDATA'), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(24)])),
        fc.constant(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')),
        fc.constant(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])),
        // A read: what follows a good request is bad.
        fc.constant(request(16n, address, 0)),
        // Not cut within address or opcode: what follows might make it a write that is allowed.
        fc.constantFrom(1, 4, 8, 17, 20, 23).map((cut) => request(4096n, address, 0).subarray(0, cut)),
        fc.nat(8).map((cut) => handshake(2n, 1, '').subarray(0, cut)),
      );
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(beginning, fc.uint8Array({ maxLength: 300 })), { minLength: 1, maxLength: 8 }),
          async (all) => {
            await Promise.all(all.map(([head, tail]) => send(child.name, [head, tail], 20)));
          },
        ),
        { numRuns: 40 },
      );
      await goodPeer(engine, child);
      await child.kill();
    }));

  test(`${plane}: many who connect and say nothing, or stop in the middle, keep nobody else out`, () =>
    withEngine(options, async (engine) => {
      const child = await start({ engine: options });
      const peer = await engine.open(child.name);
      const { address } = peer.segments[0];
      const half = request(BigInt(MIB), address, 1);
      const sockets = Array.from({ length: 200 }, (_, index) => {
        const socket = connect(Number(child.name.split(':').pop()), '127.0.0.1');
        socket.on('error', () => {});
        if (index % 2 === 1) socket.write(half.subarray(0, (index % 23) + 1));
        return socket;
      });
      await goodPeer(engine, child);
      for (const socket of sockets) socket.destroy();
      await goodPeer(engine, child);
      await child.kill();
    }));

  test(`${plane}: who asks for much and reads nothing does not hold up others`, () =>
    withEngine(options, async (engine) => {
      const child = await start({ engine: options });
      const peer = await engine.open(child.name);
      const greedy = connect(Number(child.name.split(':').pop()), '127.0.0.1');
      greedy.on('error', () => {});
      greedy.pause();
      for (let i = 0; i < 1000; i++) greedy.write(request(BigInt(MIB), peer.segments[0].address, 0));
      await goodPeer(engine, child);
      await settles('a batch meanwhile', child.ask('statistics'));
      greedy.destroy();
      await goodPeer(engine, child);
      await child.kill();
    }));
}

test.run();
