// Owners and clients in processes of their own that are killed in the middle of things, and a network that lies.
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Keys, MooncakeError, MooncakeStore, TcpTransfer } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startRelay } from '../support/relay.js';
import { code, content, same } from './support.js';

const MiB = 2 ** 20;
const file = fileURLToPath(new URL('./child.js', import.meta.url));
const children = new Set<ChildProcess>();
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** Starts a child; its first line. */
async function start(...args: string[]): Promise<{ child: ChildProcess; line: string; end: () => Promise<void> }> {
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout?.setEncoding('utf8').once('data', (text: string) => resolve(text.trim()));
    child.once('exit', () => reject(new Error('the child died')));
  });
  const end = () => {
    child.kill('SIGKILL');
    children.delete(child);
    return exited;
  };
  return { child, line, end };
}

const portOf = (address: string) => Number(new URL(address).port);

async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error('it did not come true in ten seconds');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('a client killed in the middle of a put leaves nothing, and its key is free', async () => {
  const transfer = await TcpTransfer.listen();
  const owner = new MooncakeStore({ segments: '16MB', transfer });
  owner.serve();
  const { end } = await start('put', transfer.address);
  assert.is((await owner.stats()).metadata.incomplete, 1);
  assert.is(await owner.put('mid-put', content(10, 1)), false);
  await end();
  await until(async () => (await owner.stats()).metadata.incomplete === 0);
  assert.is(await owner.isExist('mid-put'), false);
  assert.is(await owner.put('mid-put', content(10, 1)), true);
  assert.ok(same(await owner.get('mid-put'), content(10, 1)));
  await owner.close();
  await transfer.close();
});

for (const [signal, why] of [
  ['SIGKILL', 'killed'],
  ['SIGSTOP', 'stopped'],
] as const) {
  test(`an owner ${why}: gets miss as peer-lost, puts reject, and after a restart the same store works again`, async () => {
    const first = await start('own', '0');
    const port = portOf(first.line);
    // Lets 1 MiB of a large value through, then nothing is sent any more.
    let seen = 0;
    let half: () => void = () => {};
    const halfway = new Promise<void>((resolve) => {
      half = resolve;
    });
    let counting = false;
    const relay = await startRelay(port, {
      onChunk: (direction, chunk) => {
        if (counting && direction === 'down' && (seen += chunk.length) > MiB) half();
        return chunk;
      },
    });
    const transfer = await TcpTransfer.listen();
    const address = `tcp://127.0.0.1:${relay.port}`;
    const store = await MooncakeStore.attach({ transfer, address, timeoutMs: 5000 });
    const value = content(40 * MiB, 1);
    assert.is(await store.put('large', value), true);
    assert.is((await store.get('here'))?.length, 1000);

    counting = true;
    const get = store.get('large');
    await halfway;
    first.child.kill(signal);
    assert.is(await get, undefined);
    assert.is((await store.stats().catch((error) => error)) instanceof MooncakeError, true);
    assert.is(await store.get('here', { timeoutMs: 1500 }), undefined);
    assert.is(await code(() => store.put('more', content(10, 1), { timeoutMs: 1500 })), 'ERR_PEER');
    const batch = await store.openGet(Keys.from(['here']), { stride: 1000, timeoutMs: 1500 });
    assert.ok(batch.statuses[0] < 0);

    await first.end();
    const second = await start('own', `${port}`);
    await until(async () => (await store.get('here', { timeoutMs: 1500 }))?.length === 1000);
    assert.is(await store.get('large'), undefined, 'the new owner never had it');
    assert.is(await store.put('large', value.subarray(0, MiB)), true);
    assert.ok(same(await store.get('large'), value.subarray(0, MiB)));
    const { misses } = await store.stats();
    assert.ok(misses['peer-lost'] >= 3, `${misses['peer-lost']}`);
    await store.close();
    await transfer.close();
    await relay.close();
    await second.end();
  });
}

test('what began with one run of the owner ends with it', async () => {
  const first = await start('own', '0');
  const port = portOf(first.line);
  const transfer = await TcpTransfer.listen();
  const store = await MooncakeStore.attach({ transfer, address: first.line });
  const put = await store.openPut(Keys.from(['a']), 100, { stride: 100 });
  const get = await store.openGet(Keys.from(['here']), { stride: 1000 });
  await first.end();
  const second = await start('own', `${port}`);
  await until(async () => (await store.get('here', { timeoutMs: 1500 }))?.length === 1000);
  const segment = transfer.register(new Uint8Array(1000));
  const { descriptors } = await import('./descriptors.js');
  const write = descriptors([{ source: [segment, 0], destination: [0xffff_fffe, 0], length: 100 }]);
  assert.is(await code(() => put.write(write)), 'ERR_PEER');
  assert.ok((await put.commit().catch(() => [-1]))[0] < 0);
  await get.read(descriptors([{ source: [0xffff_fffe, 0], destination: [segment, 0], length: 1000 }]));
  assert.ok((await get.finish())[0] < 0);
  assert.is(await store.isExist('a'), false);
  await store.close();
  await transfer.close();
  await second.end();
});

test('bytes changed on the wire never come out of a get, nor into an object', async () => {
  const transfer = await TcpTransfer.listen();
  const owner = new MooncakeStore({ segments: '64MB', transfer });
  owner.serve();
  const value = content(4 * MiB, 1);
  await owner.put('good', value);
  for (const direction of ['down', 'up'] as const) {
    let passed = -1;
    // One byte, deep inside the payload.
    const relay = await startRelay(portOf(transfer.address), {
      onChunk: (way, chunk) => {
        if (way !== direction || passed < 0) return chunk;
        const at = 2 * MiB - passed;
        passed += chunk.length;
        if (at >= 0 && at < chunk.length) chunk[at] ^= 1;
        return chunk;
      },
    });
    const mine = await TcpTransfer.listen();
    const store = await MooncakeStore.attach({ transfer: mine, address: `tcp://127.0.0.1:${relay.port}` });
    assert.ok(same(await store.get('good'), value));
    passed = 0;
    if (direction === 'down') {
      assert.is(await store.get('good'), undefined);
      const { misses } = await store.stats();
      assert.is(misses.corrupt + misses['peer-lost'], 1);
      // The object is as good as it was: the owner has looked.
      assert.ok(same(await owner.get('good'), value));
    } else {
      const stored = await store.put('bad', value).catch((error) => error);
      assert.ok(stored instanceof MooncakeError, `${stored}`);
      assert.is(await owner.get('bad'), undefined);
      assert.is(await owner.isExist('bad'), false);
    }
    await store.close();
    await mine.close();
    await relay.close();
  }
  await owner.close();
  await transfer.close();
});

test('a program that closes what it opened ends by itself', async () => {
  const script = `
    import { MooncakeStore, TcpTransfer } from 'mooncake-ts';
    const [a, b] = [await TcpTransfer.listen(), await TcpTransfer.listen()];
    const owner = new MooncakeStore({ segments: '1MB', transfer: a });
    owner.serve();
    const store = await MooncakeStore.attach({ transfer: b, address: a.address });
    await store.put('a', new Uint8Array(10));
    await store.get('a');
    new MooncakeStore({ segments: '1MB' });
    await store.close();
    await owner.close();
    await Promise.all([a.close(), b.close()]);
    console.log('closed');
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 30_000,
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  const status = await new Promise((resolve) => child.once('exit', (exit, signal) => resolve(signal ?? exit)));
  assert.equal([text.trim(), status], ['closed', 0]);
});

test.run();
