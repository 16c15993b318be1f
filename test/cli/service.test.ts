/** `mooncake-ts service`: starts, serves its figures, gives way to nobody who lives, takes the place of the dead, stops. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const main = fileURLToPath(new URL('./cli/main.js', import.meta.resolve('mooncake-ts')));
const folder = mkdtempSync(join(tmpdir(), 'mooncake-service-'));
const socket = join(folder, 'service.sock');
const running = new Set<ChildProcess>();

const environment = { ...process.env, MOONCAKE_CONFIG_PATH: '', MOONCAKE_MASTER: '' };

function start(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [main, 'service', '--socket', socket, '--json', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment,
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

async function listening(child: ChildProcess) {
  for await (const line of createInterface({ input: child.stdout! })) {
    const event = JSON.parse(line);
    if (event.what === 'listening') return event;
  }
  throw new Error('it ended before it listened');
}

async function ends(child: ChildProcess): Promise<{ code: number | null; text: string }> {
  let text = '';
  child.stderr!.on('data', (piece) => {
    text += piece;
  });
  const [code] = await once(child, 'close');
  return { code, text };
}

test('it serves, refuses a second one, and stops on SIGTERM', async () => {
  const child = start('--store', '16MB', '--metrics-port', '0');
  const event = await listening(child);
  assert.is(event.socket, socket);
  assert.match(event.store, /16 MB/);
  const metrics = await (await fetch(`${event.metrics}/metrics`)).text();
  assert.match(metrics, /^mooncake_service_engines 0$/m);
  assert.is((await (await fetch(`${event.metrics}/status`)).json()).instance, event.instance);

  const second = await ends(start('--store', '16MB'));
  assert.is(second.code, 1);
  assert.match(second.text, /on which no other service listens/);

  child.kill('SIGTERM');
  assert.is((await ends(child)).code, 143);
  assert.not.ok(existsSync(socket) || existsSync(`${socket}.fd`));
});

test('it takes the place of one that was killed', async () => {
  const first = start('--store', '0');
  const { instance } = await listening(first);
  first.kill('SIGKILL');
  await ends(first);
  assert.ok(existsSync(socket));
  const second = start('--store', '0');
  const event = await listening(second);
  assert.is.not(event.instance, instance);
  assert.is(event.store, 'no store');
  second.kill('SIGINT');
  assert.is((await ends(second)).code, 130);
});

test('wrong flags are refused by name', async () => {
  for (const [args, text] of [
    [['--store', 'much'], /--store/],
    [['--metrics-port', '70000'], /--metrics-port/],
    [['--config', join(folder, 'none.json')], /--config/],
    [['--log-level', 'loud'], /--log-level/],
  ] as const) {
    const { code, text: said } = await ends(start(...args));
    assert.is(code, 1);
    assert.match(said, text);
  }
});

test.after(() => {
  for (const child of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

test.run();
