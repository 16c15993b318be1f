/** The client's two channels, by the accelerator's socket and by a thread, give the same answers; none keeps Node alive. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type MooncakeError, ServiceConnector } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ServiceProcess } from './service-process.js';

const service = await ServiceProcess.start();
const program = fileURLToPath(new URL('./scheduler-child.js', import.meta.url));
const ANSWERS = { matched: [0, false], meta: null, lost: null, finished: [false, null], stats: true };

for (const [way, MOONCAKE_NATIVE] of Object.entries({
  accelerator: process.env.MOONCAKE_NATIVE ?? '',
  thread: 'off',
})) {
  test(`a prompt that is longer than the socket holds, by the ${way}`, async () => {
    const options = { env: { ...process.env, MOONCAKE_NATIVE }, timeout: 120_000 };
    const { stdout } = await promisify(execFile)(process.execPath, [program, service.socket], options);
    assert.equal(JSON.parse(stdout), ANSWERS);
  });
}

const engine = (engineId: string) => ({ engineId, model: 'm', role: 'both', hash: { blockSize: 16 } }) as const;
const request = { requestId: 'r', numPromptTokens: 64, tokens: new Uint32Array(64) };

test('a service that is not there is nothing found; it is found when it comes', async () => {
  await service.kill();
  const connector = new ServiceConnector({ socket: service.socket, connector: { kind: 'store' }, timeoutMs: 20_000 });
  const scheduler = connector.createScheduler(engine('early'));
  scheduler.onNewRequest(request);
  assert.equal(scheduler.getNumNewMatchedTokens(request, 0), [0, false]);
  await service.restart();
  const nothing = { newRequests: [], cachedRequests: [], finishedRequestIds: [], preemptedRequestIds: [] };
  for (let i = 0; i < 1500 && Object.keys(scheduler.stats()).length === 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    scheduler.buildConnectorMeta({ ...nothing, numScheduledTokens: {} });
  }
  assert.ok(Object.keys(scheduler.stats()).length > 0);
  await scheduler.shutdown();
});

test('why a service has ended the connection is known also to a call that finds it ended', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-words-'));
  const socket = join(folder, 's');
  const child = spawn(process.execPath, [fileURLToPath(new URL('./refusing-child.js', import.meta.url)), socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(child.stdout, 'data');
    const connector = new ServiceConnector({ socket, connector: { kind: 'store' }, timeoutMs: 60_000 });
    const scheduler = connector.createScheduler(engine('refused'));
    // Within one turn: nothing reads what has come but the call.
    writeFileSync(`${socket}.go`, '');
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (let i = 0; i < 6000 && !existsSync(`${socket}.gone`); i++) Atomics.wait(clock, 0, 0, 10);
    scheduler.onNewRequest(request);
    assert.throws(
      () => scheduler.getNumNewMatchedTokens(request, 0),
      ({ code, message }: MooncakeError) => code === 'ERR_ENGINE' && /another KV cache/.test(message),
    );
    assert.equal(scheduler.getNumNewMatchedTokens(request, 0), [0, false], 'the engine goes on');
    await scheduler.shutdown();
  } finally {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
});

test('a stopped service holds a call up no longer than it may wait, and is usable again', async () => {
  const connector = new ServiceConnector({ socket: service.socket, connector: { kind: 'store' }, timeoutMs: 200 });
  const scheduler = connector.createScheduler(engine('stopped'));
  process.kill(service.pid, 'SIGSTOP');
  try {
    // More than the socket takes: neither the call nor what goes along with it waits for room.
    scheduler.onNewRequest({ ...request, numPromptTokens: 1_000_000, tokens: new Uint32Array(1_000_000) });
    assert.equal(scheduler.getNumNewMatchedTokens(request, 0), [0, false]);
    assert.equal(scheduler.stats(), {});
  } finally {
    process.kill(service.pid, 'SIGCONT');
  }
  await scheduler.shutdown();
  // Whoever comes next is served.
  await new Promise<void>((resolve, reject) => connect(service.socket, resolve).once('error', reject).unref());
});

test.after(() => service.close());
test.run();
