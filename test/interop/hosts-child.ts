/**
 * A store on a host of hosts.test.ts: `node hosts-child.js MASTER HOST SEGMENTS`. Prints its endpoint; then for each line of JSON
 * `{put, get, preferred}` what became of it: the keys of `put` are stored on the segments `preferred`, those of `get` are read.
 */
import { createInterface } from 'node:readline';
import { type EngineStatistics, MooncakeStore } from 'mooncake-ts';
import { value } from './stock-client.js';

const SIZES = [1, 4096, 300_000, 3 * 2 ** 20];
const [master, host, segments] = process.argv.slice(2);
const store = await MooncakeStore.connect({ master, host, segments: Number(segments) });
console.log(store.transfer.address);

const contents = (key: string) => SIZES.map((size, i) => value(key.length + i, size));
const names = (key: string) => SIZES.map((_, i) => `${key}/${i}`);

for await (const line of createInterface({ input: process.stdin })) {
  const { put = [], get = [], preferred } = JSON.parse(line);
  const wrong: string[] = [];
  for (const key of put) {
    const statuses = await store.batchPut(names(key), contents(key), { preferredSegments: preferred });
    if (statuses.some((status) => status !== 0)) wrong.push(`${key}: ${[...statuses]}`);
  }
  const endpoints = new Set<string>();
  for (const key of [...put, ...get]) {
    const expected = contents(key);
    const values = await store.batchGet(names(key));
    const single = await store.get(names(key)[3]);
    const all = [...values, single].every((bytes, i) => bytes && Buffer.compare(bytes, expected[Math.min(i, 3)]) === 0);
    if (!all) wrong.push(key);
    for (const info of await store.batchGetReplicas(names(key))) {
      for (const { endpoint } of info?.replicas ?? []) endpoints.add(endpoint);
    }
  }
  const { engine } = store.transfer as unknown as { engine: { statistics(): EngineStatistics } };
  const links = engine.statistics().links.filter(({ bytes }) => bytes > 0);
  const carriers = [...new Set(links.map(({ transport }) => transport))];
  console.log(JSON.stringify({ wrong, endpoints: [...endpoints].sort(), carriers }));
}
