/** What the tests of persistence share: a service on a folder, crashes of it, and what it says of itself. */
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MetadataOptions } from 'mooncake-ts';
import { Persistence, type PersistenceEvent, type PersistenceOptions } from 'mooncake-ts/master';
import * as assert from 'uvu/assert';
import { calls } from './support.js';

const root = mkdtempSync(join(tmpdir(), 'persist-test-'));
process.on('exit', () => rmSync(root, { recursive: true, force: true }));
let folders = 0;

export const newFolder = () => join(root, `${folders++}`);

export type Clock = { now: number };

export async function open(
  dataDir: string,
  clock: Clock,
  metadata: MetadataOptions = {},
  options: Partial<PersistenceOptions> = {},
) {
  const events: PersistenceEvent[] = [];
  // The process's clock begins anywhere; only the wall's goes on.
  const start = clock.now - 1000 * folders;
  const persistence = await Persistence.open(
    { dataDir, wallNow: () => clock.now, onEvent: (event) => events.push(event), ...options },
    { now: () => clock.now - start, alignment: 1, leaseTtlMs: 100, evictionHighWatermark: 1, ...metadata },
  );
  const { service } = persistence;
  return { dataDir, clock, persistence, service, events, ...calls(service) };
}

export type Opened = Awaited<ReturnType<typeof open>>;

/** A copy of the folder as it is now, the last log cut to so many bytes. */
export function crash({ dataDir }: { dataDir: string }, cut?: number): string {
  const copy = copyOf(dataDir);
  const last = lastLog(copy);
  if (cut !== undefined && last) truncateSync(last, cut);
  return copy;
}

/** Files may be renamed while they are copied, by the threads that write them: then once more. */
function copyOf(dataDir: string): string {
  for (let tries = 10; ; tries--) {
    const copy = newFolder();
    try {
      cpSync(dataDir, copy, { recursive: true, filter: (path) => !path.endsWith('/lock') });
      return copy;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === 0) throw error;
    }
  }
}

export function files(dataDir: string, kind: 'log' | 'snapshot'): string[] {
  const names = readdirSync(dataDir).filter((name) => name.startsWith(`${kind}-`) && !name.endsWith('.tmp'));
  return names.sort().map((name) => join(dataDir, name));
}

export const lastLog = (dataDir: string) => files(dataDir, 'log').at(-1) as string;
export const lastLogBytes = (dataDir: string) => statSync(lastLog(dataDir)).size;

/** All that is offered: by tenant and key, what a reader would be told. */
export async function contents({ service }: Opened): Promise<Map<string, unknown>> {
  const all = new Map<string, unknown>();
  const { Keys } = await import('mooncake-ts');
  for (const tenant of Object.keys(service.stats().tenants)) {
    for (const key of await service.keys(tenant)) {
      const [found] = service.peek(Keys.from([key]), tenant);
      assert.ok(found.ok, key);
      const { replicas, size, checksum } = found.value;
      const places = replicas.map(({ segment, offset }) => `${segment} ${offset}`).sort();
      all.set(`${tenant} ${key}`, { size, checksum, places });
    }
  }
  return all;
}

/** No two copies of all that is offered lie in the same bytes, nor in those of `taken`. */
export function checkApart(all: Map<string, unknown>, taken: { segment: string; offset: number; size: number }[] = []) {
  const ranges = [...taken];
  for (const { size, places } of all.values() as Iterable<{ size: number; places: string[] }>) {
    for (const place of places) {
      const [segment, offset] = place.split(' ');
      ranges.push({ segment, offset: Number(offset), size });
    }
  }
  ranges.sort((a, b) => (a.segment < b.segment ? -1 : a.segment > b.segment ? 1 : a.offset - b.offset));
  for (const [i, range] of ranges.entries()) {
    const before = ranges[i - 1];
    if (before?.segment === range.segment) assert.ok(before.offset + before.size <= range.offset, 'no overlap');
  }
}
