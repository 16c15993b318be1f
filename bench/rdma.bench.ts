/**
 * What a slice of 64 KiB costs the processor over RDMA, in our own code: engine, paths and completion queues over devices that
 * complete each request at once and move nothing (native/bench/rdma.cpp). Processor time of all threads; wanted: 250 ns, at which
 * one core keeps eight NICs of 25 GB/s (3.1 million slices a second) supplied. There is no peer to measure.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { report } from './support/report.js';

const WANTED_NS = 250;

const { buildHere } = await import(pathToFileURL(join(process.cwd(), 'scripts', 'native.mjs')).href);
const folder = await buildHere('the benchmark of RDMA', 'mooncake-rdma-cost');
const said = execFileSync(join(folder, 'mooncake-rdma-cost'), { encoding: 'utf8' });
for (const line of said.trim().split('\n')) {
  const { rails, nanoseconds } = JSON.parse(line);
  const name = `rdma: processor time of a slice, ${rails} ${rails === 1 ? 'NIC' : 'NICs'}`;
  report({ name, value: nanoseconds, unit: 'ns', baseline: WANTED_NS, peer: 'what is wanted' }, 'lower');
}
