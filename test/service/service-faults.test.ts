/** Processes that die, stop, or belong to others: engines recompute, the service lets go, and no byte is wrong. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import {
  KvLayout,
  type MooncakeError,
  MooncakeStore,
  ServiceConnector,
  type ServiceStatus,
  sharedMemory,
} from 'mooncake-ts';
import { MooncakeMaster } from 'mooncake-ts/master';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from '../connector/harness.js';
import { skip } from '../support/skip.js';
import { RawClient } from './raw-client.js';
import { ServiceProcess } from './service-process.js';

const master = await MooncakeMaster.listen({ port: 0, admin: false });
const address = `127.0.0.1:${master.ports.rpc}`;
const lender = await MooncakeStore.connect({ master: address, segments: 4 << 20 });
const service = await ServiceProcess.start({ master: address });
const { socket } = service;

const engineWith = (timeoutMs: number, loadAsync = true) =>
  new HarnessEngine({
    connector: new ServiceConnector({ socket, connector: { kind: 'store', loadAsync }, timeoutMs }),
    allocate: sharedMemory,
    blocks: 256,
    maxTokensPerStep: 24,
  });

const PROMPTS = Array.from({ length: 6 }, (_, i) => ({ tokens: tokensOf(i, 90), maxTokens: 4 }));

/** Runs the prompts; what they found in the store. */
async function round(engine: HarnessEngine): Promise<number> {
  const requests = PROMPTS.map((prompt) => engine.add(prompt));
  await engine.drain(60_000);
  return requests.reduce((sum, { externalTokens }) => sum + externalTokens, 0);
}

function expectClean(engine: HarnessEngine): void {
  assert.equal(engine.corruptions, []);
  assert.is(engine.freeBlocks, engine.blocks, 'blocks are lost');
}

async function status(): Promise<ServiceStatus> {
  const client = await RawClient.open(socket);
  const found = await client.ok('status', {});
  client.close();
  return found;
}

/** Memories of others, and of the accelerator, that the service has mapped. */
const memoryMaps = () => readFileSync(`/proc/${service.pid}/maps`, 'utf8').match(/memfd:mooncake/g)?.length ?? 0;

test('an engine that is killed leaves nothing behind, whatever it was doing', async () => {
  const program = fileURLToPath(new URL('./engine-child.js', import.meta.url));
  // The store's own memory is mapped with its first use.
  const first = engineWith(20_000);
  await round(first);
  await first.close();
  const mapped = memoryMaps();
  for (const rounds of [0, 1, 2, 3]) {
    const child = spawn(process.execPath, [program, socket, `killed-${rounds}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    for (let i = 0; i < rounds; i++) await once(child.stdout, 'data');
    if (rounds === 0) while ((await status()).engines.length === 0) await pause(5);
    await pause(7 * rounds);
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (let i = 0; i < 500 && (await status()).engines.length > 0; i++) await pause(10);
    assert.equal((await status()).engines, []);
    // Whatever it has left in the store is right.
    const engine = engineWith(20_000);
    await round(engine);
    expectClean(engine);
    await engine.close();
  }
  // What engines handed over is let go at once, not when the collector comes by.
  for (let i = 0; i < 500 && memoryMaps() > mapped; i++) await pause(10);
  assert.ok(memoryMaps() <= mapped, 'memory of engines stays mapped');
});

for (const loadAsync of [true, false]) {
  test(`a service that is killed and restarted under load, loads ${loadAsync ? 'beside' : 'within'} the step`, async () => {
    const engine = engineWith(20_000, loadAsync);
    await round(engine);
    for (const wait of [0, 15, 40]) {
      const running = round(engine);
      await pause(wait);
      await service.kill();
      await pause(20);
      await service.restart();
      await running;
      expectClean(engine);
    }
    // It finds its way back by itself.
    let found = 0;
    for (let i = 0; i < 200 && found === 0; i++) {
      await pause(20);
      found = await round(engine);
    }
    assert.ok(found > 0, 'nothing is found any more');
    expectClean(engine);
    await engine.close();
  });
}

test('a service that stops for longer than calls wait', async () => {
  const engine = engineWith(300);
  await round(engine);
  const running = round(engine);
  await pause(10);
  process.kill(service.pid, 'SIGSTOP');
  const going = setTimeout(() => process.kill(service.pid, 'SIGCONT'), 1500);
  await running;
  clearTimeout(going);
  process.kill(service.pid, 'SIGCONT');
  expectClean(engine);
  await engine.close();
});

/** Of one layer, 16 blocks of 256 bytes. */
function layout([id]: readonly number[]): KvLayout {
  const strides = { block: 256, token: 32, head: 32 };
  const k = { dtype: 'uint8' as const, elements: 32, strides, at: { segment: id, offset: 0 } };
  const group = { kind: 'full' as const, layers: [0], heads: 1, blockSize: 8, blocks: 16, tensors: { k } };
  return new KvLayout({ segments: [{ id, length: 4096 }], groups: [group] });
}

test('a service that stops and keeps the memory: a step that needs it fails, and the next does not', async () => {
  const connector = new ServiceConnector({ socket, connector: { kind: 'store' }, timeoutMs: 5000, silenceMs: 300 });
  const engine = { engineId: 'silent', model: 'm', role: 'both', hash: { blockSize: 8, seed: '0' } } as const;
  const worker = connector.createWorker(engine, 0);
  worker.registerKvCaches({ memories: [sharedMemory(4096)], layout });
  process.kill(service.pid, 'SIGSTOP');
  try {
    await worker.handlePreemptions(['a']);
    assert.unreachable('the memory is still the service’s');
  } catch (error) {
    assert.is((error as MooncakeError).code, 'ERR_TIMEOUT');
  } finally {
    process.kill(service.pid, 'SIGCONT');
  }
  for (let tries = 0; ; tries++) {
    const failed = await worker.handlePreemptions(['a']).then(
      () => undefined,
      (error) => error,
    );
    if (failed === undefined) break;
    assert.ok(tries < 100, `still: ${failed}`);
  }
  await worker.shutdown();
});

test('a service that is asked to stop does', async () => {
  const engine = engineWith(20_000);
  await round(engine);
  assert.is(await service.kill('SIGTERM'), 0);
  await round(engine);
  expectClean(engine);
  await service.restart();
  await engine.close();
});

const OTHERS = 'processes of other users are sent away';
const sentAway = async () => {
  chmodSync(dirname(socket), 0o755);
  for (const path of [socket, `${socket}.fd`]) chmodSync(path, 0o666);
  const hello = `
    const s = require('node:net').connect(${JSON.stringify(socket)});
    s.on('connect', () => s.write(Buffer.from([1, 0, 0, 0, 0x90])));
    s.on('data', () => process.exit(1));
    s.on('error', () => {});
    s.on('close', () => process.exit(42));
  `;
  const child = spawn(process.execPath, ['-e', hello], { uid: 65_534, gid: 65_534, cwd: '/', stdio: 'inherit' });
  const [code] = await once(child, 'exit');
  assert.is(code, 42);
  assert.is((await status()).refusedConnections, 1);
};
if (process.getuid?.() === 0) test(OTHERS, sentAway);
else skip(test, OTHERS, 'it takes root to be another user', 'run it as root');

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test.after(async () => {
  await service.close();
  await lender.close();
  await master.close();
});

const STRANGER = 'a service of another user is told nothing';
const stranger = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-stranger-'));
  chmodSync(folder, 0o777);
  const path = join(folder, 'service.sock');
  const listen = `
    require('node:net').createServer((s) => s.on('data', () => console.log('told')).on('error', () => {}))
      .listen(${JSON.stringify(path)}, () => {
        require('node:fs').chmodSync(${JSON.stringify(path)}, 0o666);
        console.log('listening');
      });
  `;
  const listener = spawn(process.execPath, ['-e', listen], { uid: 65_534, gid: 65_534, cwd: '/' });
  try {
    const heard = createInterface({ input: listener.stdout });
    const lines: string[] = [];
    heard.on('line', (line) => lines.push(line));
    await once(heard, 'line');
    const program = fileURLToPath(new URL('./stranger-child.js', import.meta.url));
    const client = spawn(process.execPath, [program, path], { uid: 65_533, gid: 65_533 });
    let said = '';
    for (const stream of [client.stdout, client.stderr]) stream.on('data', (text) => (said += text));
    await once(client, 'close');
    assert.match(said, /^ERR_INVALID_ARGUMENT socket: the service at .* is user 65534's, not user 65533's/);
    assert.equal(lines, ['listening']);
  } finally {
    listener.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
};
if (process.getuid?.() === 0) test(STRANGER, stranger);
else skip(test, STRANGER, 'it takes root to be two other users', 'run it as root');

test.run();
