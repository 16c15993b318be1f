/** Routers made for vLLM's MooncakeConnector: they ask a prefill engine's bootstrap server, and pass its URL on to the decode. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ServiceConnector, sharedMemory } from 'mooncake-ts';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HarnessEngine, tokensOf } from '../connector/harness.js';
import { ServiceProcess } from './service-process.js';

const [here, there] = await Promise.all([ServiceProcess.start(), ServiceProcess.start()]);

const engineAt = ({ socket }: ServiceProcess, engineId: string, role: 'producer' | 'consumer', options: object) =>
  new HarnessEngine({
    connector: new ServiceConnector({ socket, connector: { kind: 'mooncake', ...options }, timeoutMs: 20_000 }),
    allocate: sharedMemory,
    engineId,
    role,
    tensorParallelSize: 2,
  });

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

const query = async (port: number) => (await fetch(`http://127.0.0.1:${port}/query`)).json();

/** The prompt on the prefill, then on a decode that is told of it as such a router does. */
async function handOver(prefill: HarnessEngine, decode: HarnessEngine, url: string, seed: number) {
  const tokens = tokensOf(seed, 22);
  const transfer_id = `transfer-${seed}`;
  const given = prefill.add({ tokens, maxTokens: 1, kvTransferParams: { do_remote_decode: true, transfer_id } });
  await prefill.until(() => given.state === 'finished');
  const params = {
    do_remote_prefill: true,
    transfer_id,
    remote_engine_id: prefill.info.engineId,
    remote_bootstrap_addr: url,
  };
  const taken = decode.add({ tokens, maxTokens: 3, kvTransferParams: params });
  // The prefill offers its blocks in its next step.
  await Promise.all([prefill.drain(), decode.drain()]);
  return taken;
}

test('a prefill engine is asked at its port, and a decode finds it by that URL', async () => {
  const port = await freePort();
  const prefill = engineAt(here, 'prefill', 'producer', { bootstrapPort: port });
  const decode = engineAt(there, 'decode', 'consumer', {});
  const answer = await query(port);
  assert.is(answer['0'].engine_id, 'prefill');
  const { address } = answer['0'].mooncake_ts;
  assert.match(address, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  assert.equal(answer['0'].worker_addr, { 0: { 0: address }, 1: { 0: address } });
  assert.is((await fetch(`http://127.0.0.1:${port}/register`, { method: 'POST' })).status, 404);

  for (const seed of [1, 2]) {
    const taken = await handOver(prefill, decode, `http://127.0.0.1:${port}`, seed);
    assert.ok(taken.externalTokens > 0, 'the decode computed the prompt itself');
  }
  assert.equal([...prefill.corruptions, ...decode.corruptions], []);
  await prefill.close();
  // With its engine the port is free.
  const gone = await query(port).catch((error) => error);
  assert.instance(gone, Error);
  await decode.close();
});

test('a server that names no engine of ours, and one that is not there: the decode computes', async () => {
  const stock = createServer((_, response) => {
    response.end(JSON.stringify({ 0: { engine_id: 'prefill', worker_addr: { 0: { 0: 'tcp://127.0.0.1:1' } } } }));
  });
  stock.listen(0, '127.0.0.1');
  await once(stock, 'listening');
  const nobody = await freePort();
  const prefill = engineAt(here, 'prefill', 'producer', { abortTimeoutMs: 50 });
  const decode = engineAt(there, 'decode', 'consumer', {});
  for (const [index, port] of [(stock.address() as AddressInfo).port, nobody].entries()) {
    const taken = await handOver(prefill, decode, `http://127.0.0.1:${port}`, 10 + index);
    assert.is(taken.externalTokens, 0);
    assert.is(taken.outputTokens.length, 3);
  }
  assert.equal(decode.corruptions, []);
  assert.is(decode.freeBlocks, decode.blocks);
  await prefill.close();
  await decode.close();
  stock.close();
});

test('a port that is another’s is told to the engine, which works without', async () => {
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const prefill = engineAt(here, 'late', 'producer', { bootstrapPort: port });
  await prefill.run({ tokens: tokensOf(3, 10) });
  assert.ok(here.lines.some(({ what, text }) => what === 'failed' && text?.includes(`127.0.0.1:${port}`)));
  await prefill.close();
  taken.close();
});

test.after(async () => {
  await Promise.all([here.close(), there.close()]);
});

test.run();
