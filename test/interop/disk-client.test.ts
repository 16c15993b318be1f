/** Stock clients that lend a disk (disk_client.py) on the stock master and on ours: offload, reads from disk, promotion. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort, type Kind, Master } from './masters.js';

const script = fileURLToPath(new URL('./disk_client.py', import.meta.url));
const TIMEOUT_MS = 180_000;
const OBJECTS = 40;

async function run(kind: Kind, flags: readonly string[]): Promise<Record<string, unknown>> {
  const common = ['--default_kv_lease_ttl=500', '--enable_offload=true', '--promotion_on_hit=true'];
  const master = await Master.start(kind, [...common, ...flags]);
  const folder = mkdtempSync(join(tmpdir(), 'mooncake-disk-'));
  const [owner, reader] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const child = spawn(process.env.MOONCAKE_PYTHON!, [script, `127.0.0.1:${master.port}`, owner, reader, folder], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let [printed, log] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => {
    printed += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    log = (log + text).slice(-4000);
  });
  try {
    const code = await new Promise((resolve) => child.once('close', resolve));
    assert.is(code, 0, `${kind}: ${log}\n${printed}`);
    return Object.fromEntries(
      printed
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    );
  } finally {
    await master.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

const RIGHT = {
  owner: 0,
  reader: 0,
  put: true,
  'wrong for the owner': [],
  'wrong for a reader': [],
  removed: true,
  promoted: true,
  'right again': true,
  'all removed': 0,
};

for (const flags of [[], ['--offload_on_evict=true']]) {
  for (const kind of ['stock', 'ours'] as const) {
    test(`stock clients with a disk on the ${kind} master, ${flags[0] ?? 'offloading what is put'}`, async () => {
      const { known, 'on disk alone': alone, ...rest } = await run(kind, flags);
      assert.equal(rest, RIGHT);
      // Stock may evict what is not on a disk yet; ours holds it.
      if (kind === 'ours') assert.is(known, OBJECTS);
      assert.ok((alone as number) >= 16, `${alone} on disk alone`);
    });
  }
}

test.run();
