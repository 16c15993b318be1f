// The stock transfer engine over RDMA as a peer, in both directions, with one and two NICs a side.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one, pattern } from '../../support/descriptors.js';
import { engine, hash, linked, MiB, nics } from './support.js';

const BYTES = 4 * MiB;

/** A process with a stock engine: one JSON request a line, one answer each. */
class Stock {
  readonly #child: ChildProcess;
  readonly #answers: Interface;
  name = '';

  constructor(devices: string) {
    const script = fileURLToPath(new URL('./stock.py', import.meta.url));
    const settings = {
      MC_GID_INDEX: '1',
      MC_NUM_QP_PER_EP: '2',
      MC_MAX_WR: '16',
      MC_WORKERS_PER_CTX: '1',
      MC_SLICE_SIZE: '262144',
    };
    this.#child = spawn(process.env.MOONCAKE_PYTHON!, [script, devices], {
      env: { ...process.env, ...settings },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.#answers = createInterface({ input: this.#child.stdout! });
  }

  // biome-ignore lint/suspicious/noExplicitAny: JSON
  async ask(request: object): Promise<any> {
    const answer = new Promise<string>((resolve) => this.#answers.once('line', resolve));
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    return JSON.parse(await answer);
  }

  async start(): Promise<{ address: number; length: number }> {
    const { name, address } = await this.ask({ do: 'start', bytes: BYTES });
    this.name = name;
    return { address, length: BYTES };
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

for (const count of [1, 2]) {
  test(`a stock engine with ${count} NICs: we write and read its memory`, async () => {
    const stock = new Stock(nics(2, count));
    const a = await engine(nics(0, count), { protocol: 'rdma' });
    try {
      const { address, length } = await stock.start();
      const ours = await a.allocate(length);
      ours.memory.set(pattern(length, 3));
      const peer = await a.open(stock.name);
      await linked(a, count);
      const { segment, offset } = peer.at(BigInt(address), length);
      const wrote = await a.write(peer, one(ours.id, 0, segment, offset, length));
      assert.is(wrote.bytes, length);
      assert.is((await stock.ask({ do: 'hash' })).hash, hash(ours.memory));
      ours.memory.fill(0);
      await a.read(peer, one(segment, offset, ours.id, 0, length));
      assert.is(hash(ours.memory), hash(pattern(length, 3)));
    } finally {
      await a.close();
      stock.end();
    }
  });

  test(`a stock engine with ${count} NICs writes and reads ours`, async () => {
    const stock = new Stock(nics(2, count));
    const b = await engine(nics(0, count), { protocol: 'rdma' });
    try {
      await stock.start();
      const theirs = await b.allocate(BYTES);
      await stock.ask({ do: 'fill', value: 11 });
      const wrote = await stock.ask({ do: 'write', name: b.name, address: Number(theirs.address), bytes: BYTES });
      assert.is(wrote.result, 0);
      assert.is(hash(theirs.memory), hash(new Uint8Array(BYTES).fill(11)));
      theirs.memory.set(pattern(BYTES, 4));
      const read = await stock.ask({ do: 'read', name: b.name, address: Number(theirs.address), bytes: BYTES });
      assert.is(read.result, 0);
      assert.is((await stock.ask({ do: 'hash' })).hash, hash(theirs.memory));
    } finally {
      await b.close();
      stock.end();
    }
  });
}

test.run();
