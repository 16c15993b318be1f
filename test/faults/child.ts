/**
 * A process with a transfer engine, for tests to kill, stop, cut off and restrict: `node child.js OPTIONS BYTES`, where
 * OPTIONS are TransferEngine.create's as JSON. It allocates one segment and registers another, both of BYTES bytes that
 * depend on their place (support.ts), prints its name as a line, then takes commands as JSON lines and answers each with
 * one: {"ok": …} or {"error": …}.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type MemorySegment, TransferEngine } from 'mooncake-ts';
import { one } from '../support/descriptors.js';
import { isFilled, placed } from './bytes.js';

const options = JSON.parse(process.argv[2]);
const bytes = Number(process.argv[3]);

const engine = await TransferEngine.create(options);
const allocated = await engine.allocate(bytes, { name: 'allocated' });
allocated.memory.set(placed(bytes, 1));
await engine.register(placed(bytes, 2), { name: 'registered' });

/** Taken away while others may use it, and used for something else at once; tells nobody that it changed afterwards. */
let recycled: MemorySegment | undefined;

const commands: Record<string, (argument: string) => Promise<unknown>> = {
  /** Reads a peer's segments, writes them and reads them back; the links by which it went. */
  async exercise(name) {
    const peer = await engine.open(name);
    const ours = await engine.register(new Uint8Array(bytes), { name: 'scratch' });
    for (const segment of peer.segments) {
      const seed = segment.name === 'allocated' ? 1 : 2;
      await engine.read(peer, one(segment.id, 0, ours.id, 0, bytes));
      if (Buffer.compare(ours.memory, placed(bytes, seed)) !== 0) throw new Error(`${segment.name} was read wrongly`);
      ours.memory.fill(seed + 100);
      await engine.write(peer, one(ours.id, 0, segment.id, 0, bytes));
      ours.memory.fill(0);
      await engine.read(peer, one(segment.id, 0, ours.id, 0, bytes));
      if (!isFilled(ours.memory, seed + 100)) throw new Error(`${segment.name} was written wrongly`);
      ours.memory.set(placed(bytes, seed));
      await engine.write(peer, one(ours.id, 0, segment.id, 0, bytes));
    }
    await engine.unregister(ours.id);
    const { links } = engine.statistics();
    return links.filter((link) => link.peer === name && link.bytes > 0).map(({ transport }) => transport);
  },

  /** Reads a peer's first segment again and again. */
  async read(name) {
    const peer = await engine.open(name);
    const ours = await engine.allocate(bytes, { name: 'scratch' });
    for (let i = 0; i < 20; i++) await engine.read(peer, one(peer.segments[0].id, 0, ours.id, 0, bytes));
    const right = Buffer.compare(ours.memory, placed(bytes, 1)) === 0;
    await engine.unregister(ours.id);
    return right;
  },

  async file() {
    const folder = mkdtempSync(join(tmpdir(), 'mooncake-faults-'));
    try {
      const path = join(folder, 'tier');
      const file = await engine.openFile(path, { length: bytes });
      await engine.copy(one(allocated.id, 0, file.id, 0, bytes));
      if (Buffer.compare(readFileSync(path), allocated.memory) !== 0) throw new Error('the file was written wrongly');
      const back = await engine.register(new Uint8Array(bytes));
      await engine.copy(one(file.id, 1, back.id, 1, bytes - 1));
      if (Buffer.compare(back.memory.subarray(1), allocated.memory.subarray(1)) !== 0) {
        throw new Error('the file was read wrongly');
      }
      await engine.unregister(file.id);
      await engine.unregister(back.id);
    } finally {
      rmSync(folder, { recursive: true });
    }
    return engine.statistics().transports.find(({ name }) => name === 'file')?.detail;
  },

  /** A segment full of 0x11: allocated memory, or a buffer. */
  async offer(kind) {
    recycled =
      kind === 'allocated'
        ? await engine.allocate(bytes, { name: 'recycled' })
        : await engine.register(new Uint8Array(bytes), { name: 'recycled' });
    recycled.memory.fill(0x11);
    return null;
  },
  async recycle() {
    const { id, memory } = recycled!;
    await engine.unregister(id);
    memory.fill(0xee);
    return null;
  },
  async untouched() {
    return isFilled(recycled!.memory, 0xee);
  },

  async statistics() {
    return engine.statistics();
  },
  async close() {
    await engine.close();
    lines.close();
    return null;
  },
};

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const [name, argument] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ ok: await commands[name](argument) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
});
console.log(JSON.stringify({ ok: engine.name }));
