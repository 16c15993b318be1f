// A thousand connections, moves and calls that come and go leave nothing behind.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { one } from '../support/descriptors.js';
import { KINDS, rejects, sleep } from './support.js';

setFlagsFromString('--expose_gc');
const gc = runInNewContext('gc') as () => void;

/** What is alive: handles by kind, and bytes of the heap and of buffers. */
async function alive() {
  for (let i = 0; i < 3; i++) {
    await sleep(20);
    gc();
  }
  const handles = process.getActiveResourcesInfo().filter((name) => /TCP|Pipe|Timeout|Immediate/.test(name));
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { handles: handles.sort(), bytes: heapUsed + arrayBuffers };
}

for (const kind of KINDS) {
  test(`${kind.name}: 1,000 peers opened and closed`, async () => {
    const idle = await alive();
    const [a, b] = [await kind.open(), await kind.open()];
    b.serve('echo', (message) => message);
    const [here, there] = [a.register(new Uint8Array(1000)), b.register(new Uint8Array(1000))];
    const signal = new AbortController().signal;
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners++;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners--;
      removeEventListener.apply(signal, args);
    };
    const cycle = async () => {
      const peer = await a.connect(b.address, { signal });
      await peer.call('echo', 'x', { signal });
      await peer.read(one(there, 0, here, 0, 1000), { signal });
      await peer.write(one(here, 0, there, 0, 1000), { signal });
      await rejects(peer.call('none', 0, { signal }), 'ERR_NOT_SUPPORTED');
      await peer.close();
    };
    for (let i = 0; i < 100; i++) await cycle();
    const before = await alive();
    for (let i = 0; i < 900; i++) await cycle();
    const after = await alive();
    assert.equal(after.handles, before.handles);
    assert.is(listeners, 0, 'listeners left on the signal');
    const grown = after.bytes - before.bytes;
    assert.ok(grown < 4 * 2 ** 20, `${grown} bytes more after 900 connections`);
    await Promise.all([a.close(), b.close()]);
    assert.equal((await alive()).handles, idle.handles);
  });
}

test.run();
