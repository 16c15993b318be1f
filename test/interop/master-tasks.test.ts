/** Copy and move tasks and a drain job, carried out by stock Python clients, on both masters: what they see must be the same. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort, type Kind, Master } from './masters.js';

const clients = process.env.TASK_CLIENTS ?? fileURLToPath(new URL('./task_clients.py', import.meta.url));

async function lines(kind: Kind): Promise<string[]> {
  const master = await Master.start(kind, ['--default_kv_lease_ttl=2000']);
  try {
    const [first] = [await freePort(), await freePort(), await freePort()];
    const places = [`127.0.0.1:${master.port}`, `127.0.0.1:${master.adminPort}`, 'P2PHANDSHAKE', `${first}`];
    const child = spawn(process.env.MOONCAKE_PYTHON!, [clients, ...places], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 300_000,
    });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log = (log + text).slice(-3000);
    });
    const said: string[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => said.push(line));
    await new Promise<void>((resolve) => child.once('close', () => resolve()));
    assert.is(said.at(-1), '["closed", 0]', `${kind}: ${said.at(-1)}\n${log}\n${master.log}`);
    return said;
  } finally {
    await master.end();
  }
}

test('stock clients copy, move and drain on ours as on the stock master', async () => {
  const stock = await lines('stock');
  const ours = await lines('ours');
  assert.equal(ours, stock);
  const tasks = new Map(ours.map((line) => JSON.parse(line) as [string, unknown]));
  assert.equal(tasks.get('copy task'), [0, 'TaskStatus.SUCCESS', ['a', 'b', 'c']]);
  assert.equal(tasks.get('move task'), [0, 'TaskStatus.SUCCESS', ['c']]);
  assert.is(tasks.get('segment'), 'DRAINED');
});

test.run();
