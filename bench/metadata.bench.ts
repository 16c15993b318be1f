/**
 * The metadata service in one process, batches of stock keys (135 bytes) of one copy each: puts, lookups, reads, and puts
 * into a full store. Eviction must not grow dearer with what is protected: the last figures are the same put, with ten
 * thousand objects and with a hundred times as many that are all being read. There is no peer: the stock master answers
 * over a network only.
 */
import { Keys, MetadataService } from 'mooncake-ts';
import { median, report } from './support/report.js';

const BATCH = 256;
const CLIENT = '1'.repeat(32);
const SIZE = 4096;

const key = (i: number) =>
  `meta-llama/Llama-3.1-8B-Instruct@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@${i.toString(16).padStart(64, '0')}`;

function batches(first: number, count: number, size = BATCH): Keys[] {
  const starts = Array.from({ length: Math.ceil(count / size) }, (_, at) => first + at * size);
  return starts.map((start) => Keys.from(Array.from({ length: size }, (_, i) => key(start + i))));
}

function open(objects: number): MetadataService {
  const service = new MetadataService({ now: () => 0, evictionHighWatermark: 1, evictionRatio: 1e-6 });
  const place = { base: 0, length: objects * SIZE, endpoint: 'local:bench', protocol: 'local', hostId: '' };
  service.mountSegment({ id: '2'.repeat(32), name: 'bench', ...place }, CLIENT);
  return service;
}

function put(service: MetadataService, keys: Keys): void {
  service.putStart(CLIENT, keys, new Float64Array(keys.length).fill(SIZE), {});
  service.putEnd(CLIENT, keys, Array(keys.length).fill(undefined));
}

/** Median nanoseconds for a key over the batches. */
function each(all: readonly Keys[], work: (keys: Keys) => void): number {
  const times = all.map((keys) => {
    const start = process.hrtime.bigint();
    work(keys);
    return Number(process.hrtime.bigint() - start) / keys.length;
  });
  return median(times);
}

function calls(objects: number): void {
  const all = batches(0, objects);
  const service = open(objects + BATCH);
  report({ name: 'put, start and end', value: each(all, (keys) => put(service, keys)), unit: 'ns/object' }, 'lower');
  report({ name: 'exist', value: each(all, (keys) => service.exist(keys)), unit: 'ns/key' }, 'lower');
  const none = batches(2 ** 30, objects);
  report({ name: 'exist, all absent', value: each(none, (keys) => service.exist(keys)), unit: 'ns/key' }, 'lower');
  report({ name: 'getReplicas', value: each(all, (keys) => service.getReplicas(keys)), unit: 'ns/key' }, 'lower');
}

function evicting(objects: number): number {
  const service = open(objects + 1024);
  for (const keys of batches(0, objects)) put(service, keys);
  for (const keys of batches(0, objects)) service.getReplicas(keys);
  // What is read stays; the objects that go are those put last, each for the next.
  return each(batches(2 ** 30, 8192, 1), (keys) => put(service, keys));
}

calls(200_000);
for (const objects of [10_000, 1_000_000]) {
  const name = `put that evicts, ${objects.toLocaleString('en-US')} objects being read`;
  report({ name, value: evicting(objects), unit: 'ns' }, 'lower');
}
