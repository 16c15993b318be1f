/**
 * Copies between memory and a file of 256 MiB (TransferEngine.copy, the accelerator's file transport), blocks of 64 KiB,
 * 256 KiB and 1 MiB in order and mixed, past the page cache where the file system can. Peer of the same run: fio (found on
 * PATH, or FIO=/path) with direct I/O, io_uring and as many requests under way; without it, one pread or pwrite after the
 * other on a descriptor with O_DIRECT. MOONCAKE_BENCH_FOLDER says where the file is (default: the system's temporary
 * folder), MOONCAKE_FILE_IO=threads leaves io_uring out.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Descriptors, type MemorySegment, TransferEngine } from 'mooncake-ts';
import { median, missing, report } from './support/report.js';

const BYTES = 256 * 2 ** 20;
const RUNS = 5;
const DEPTH = 16;
const FIO = process.env.FIO ?? 'fio';

interface Case {
  direction: 'read' | 'write';
  order: 'sequential' | 'random';
  block: number;
}

/** Block numbers; mixed ones by a fixed generator, each once. */
function places({ order, block }: Case): number[] {
  const all = Array.from({ length: BYTES / block }, (_, index) => index);
  if (order === 'sequential') return all;
  let state = 1;
  for (let i = all.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const j = state % (i + 1);
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}

/** Each block between its place in the file and the next one in memory. */
function descriptors(work: Case, file: number, memory: number): Descriptors {
  const list = places(work);
  const bytes = new Uint8Array(32 * (list.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('KVTD'));
  view.setUint16(4, 1, true);
  view.setUint16(6, 32, true);
  view.setBigUint64(8, BigInt(list.length), true);
  const read = work.direction === 'read';
  list.forEach((place, index) => {
    const at = 32 * (index + 1);
    const [inFile, inMemory] = [BigInt(place * work.block), BigInt(index * work.block)];
    view.setUint32(at, read ? file : memory, true);
    view.setUint32(at + 4, read ? memory : file, true);
    view.setBigUint64(at + 8, read ? inFile : inMemory, true);
    view.setBigUint64(at + 16, read ? inMemory : inFile, true);
    view.setBigUint64(at + 24, BigInt(work.block), true);
  });
  return new Descriptors(bytes);
}

const gigabytes = (milliseconds: number) => BYTES / milliseconds / 1e6;

/** GB/s of fio; undefined where it is not there. */
function fio({ direction, order, block }: Case, path: string): number | undefined {
  const { status, stdout } = spawnSync(
    FIO,
    [
      '--name=peer',
      `--filename=${path}`,
      `--rw=${order === 'random' ? 'rand' : ''}${direction}`,
      `--bs=${block}`,
      `--size=${BYTES}`,
      '--direct=1',
      `--ioengine=${process.env.MOONCAKE_FILE_IO === 'threads' ? 'psync' : 'io_uring'}`,
      `--iodepth=${DEPTH}`,
      '--output-format=json',
    ],
    { encoding: 'utf8' },
  );
  if (status !== 0) return undefined;
  return JSON.parse(stdout).jobs[0][direction].bw_bytes / 1e9;
}

/** GB/s of one call after the other, as a program without io_uring or threads moves them. */
function calls(work: Case, path: string, memory: Uint8Array): number | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDWR | constants.O_DIRECT);
  } catch {
    return undefined;
  }
  const read = work.direction === 'read';
  const start = performance.now();
  places(work).forEach((place, index) => {
    const at = [index * work.block, work.block, place * work.block] as const;
    if (read) readSync(descriptor, memory, ...at);
    else writeSync(descriptor, memory, ...at);
  });
  const elapsed = performance.now() - start;
  closeSync(descriptor);
  return gigabytes(elapsed);
}

async function measure(work: Case, engine: TransferEngine, file: number, memory: MemorySegment, path: string) {
  const batch = descriptors(work, file, memory.id);
  const peer = spawnSync(FIO, ['--version']).status === 0 ? 'fio' : 'pread, pwrite';
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let run = -1; run < RUNS; run++) {
    const start = performance.now();
    await engine.copy(batch, { timeoutMs: 300_000 });
    const speed = gigabytes(performance.now() - start);
    const other = peer === 'fio' ? fio(work, path) : calls(work, path, memory.memory);
    if (run < 0) continue;
    ours.push(speed);
    if (other !== undefined) theirs.push(other);
  }
  const name = `file ${work.direction}, ${work.order}, ${work.block / 1024} KiB`;
  report(
    { name, value: median(ours), unit: 'GB/s', baseline: theirs.length > 0 ? median(theirs) : undefined, peer },
    'higher',
  );
}

const folder = mkdtempSync(join(process.env.MOONCAKE_BENCH_FOLDER ?? tmpdir(), 'mooncake-bench-'));
const engine = await TransferEngine.create();
try {
  if (engine.accelerated) {
    const path = join(folder, 'tier');
    const memory = await engine.allocate(BYTES);
    memory.memory.fill(7);
    const { id } = await engine.openFile(path, { length: BYTES });
    for (const direction of ['write', 'read'] as const) {
      for (const order of ['sequential', 'random'] as const) {
        for (const block of [64 << 10, 256 << 10, 1 << 20]) {
          await measure({ direction, order, block }, engine, id, memory, path);
        }
      }
    }
  } else {
    missing('file', `the accelerator is not there: ${engine.why}`);
  }
} finally {
  await engine.close();
  rmSync(folder, { recursive: true });
}
