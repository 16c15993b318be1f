/** What `mooncake-ts bench transfer` found: for people, and as JSON lines. */
import { printable } from '../../cli/printable.js';
import { PLAIN, type TableStyle } from '../../replay/table.js';
import type { BenchResult, Contender, Throughput } from './run.js';

const NAME = 13;
const CELL = 8;

/** 65536 is "64 KiB". */
export function sizeText(bytes: number): string {
  const unit = ['B', 'KiB', 'MiB', 'GiB'].findLastIndex((_, power) => power === 0 || bytes % 1024 ** power === 0);
  return `${bytes / 1024 ** unit} ${['B', 'KiB', 'MiB', 'GiB'][unit]}`;
}

const gbs = (value: number) => (value >= 100 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2));
const micros = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));

export function formatTable(result: BenchResult, style: TableStyle = PLAIN): string {
  const { contenders } = result;
  const working = contenders.filter(({ unusable }) => unusable === undefined);
  const sections = [ceiling(result), throughput(working, result.sizes, style), single(working, style)];
  const perDescriptor = working.find(({ perDescriptor }) => perDescriptor !== undefined)?.perDescriptor;
  if (perDescriptor !== undefined) {
    sections.push(`8,192 blocks of 64 bytes in one batch, local: ${perDescriptor.toFixed(0)} ns each`);
  }
  const notes = [...contenders.flatMap(({ name, unusable }) => (unusable === undefined ? [] : [[name, unusable]]))];
  if (result.iperf3Why !== undefined) notes.push(['iperf3', result.iperf3Why]);
  notes.push(...failures(working));
  if (notes.length > 0) {
    sections.push(['not measured', ...notes.map(([name, why]) => `  ${name}: ${printable(why)}`)].join('\n'));
  }
  return sections.filter((section) => section !== '').join('\n\n');
}

function ceiling({ total, memcpy, iperf3 = [] }: BenchResult): string {
  const lines = [];
  if (memcpy !== undefined) lines.push(`memcpy of ${sizeText(total)} on one core: ${gbs(memcpy)} GB/s`);
  for (const { streams, rate } of iperf3) {
    lines.push(`iperf3 over loopback, ${streams} ${streams === 1 ? 'stream' : 'streams'}: ${gbs(rate)} GB/s`);
  }
  return lines.join('\n');
}

function throughput(contenders: readonly Contender[], sizes: readonly number[], style: TableStyle): string {
  const head = ['GB/s'.padEnd(NAME), ''.padEnd(5), 'verify', ...sizes.map((size) => sizeText(size).padStart(CELL))];
  const lines = [style.dim(head.join(' '))];
  for (const { name, throughput } of contenders) {
    throughput.forEach(({ op, verify, rates }, at) => {
      const cells = sizes.map((size) => {
        const found = rates.get(size);
        return (typeof found === 'number' ? gbs(found) : '-').padStart(CELL);
      });
      const label = (at === 0 ? name : '').padEnd(NAME);
      lines.push([label, op.padEnd(5), (verify === 'none' ? '-' : verify).padEnd(6), ...cells].join(' '));
    });
  }
  return lines.length === 1 ? '' : lines.join('\n');
}

function single(contenders: readonly Contender[], style: TableStyle): string {
  const rows = contenders.flatMap(({ name, latency }) => (latency ? [{ name, ...latency }] : []));
  if (rows.length === 0) return '';
  const columns = (cells: string[]) => cells.map((cell) => cell.padStart(CELL)).join(' ');
  return [
    style.dim(`${'4 KiB, one at a time, us'.padEnd(NAME + 12)} ${columns(['median', '90 %', '99 %'])}`),
    ...rows.map(({ name, p50, p90, p99 }) => `${name.padEnd(NAME + 12)} ${columns([p50, p90, p99].map(micros))}`),
  ].join('\n');
}

/** What failed in a contender that works, each reason once. */
function failures(contenders: readonly Contender[]): string[][] {
  return contenders.flatMap(({ name, throughput }) => {
    const whys = throughput.flatMap(({ rates }) => [...rates.values()].filter((found) => typeof found === 'string'));
    return [...new Set(whys)].map((why) => [name, why]);
  });
}

/** The line of every benchmark (name, value, unit, baseline, ratio), one for each figure. */
export function formatJson(result: BenchResult): string[] {
  const { memcpy, total, iperf3 = [], iperf3Why } = result;
  const lines: object[] = [];
  const baseline = memcpy === undefined ? {} : { baseline: rounded(memcpy), peer: 'memcpy' };
  const add = (name: string, value: number, unit: string, rest: object = {}) =>
    lines.push({ name: `transfer/${name}`, value: rounded(value), unit, baseline: null, ratio: null, ...rest });
  const skip = (name: string, why: string, rest: object = {}) =>
    lines.push({
      name: `transfer/${name}`,
      value: null,
      unit: null,
      baseline: null,
      ratio: null,
      skipped: why,
      ...rest,
    });
  if (memcpy !== undefined) add('memcpy', memcpy, 'GB/s', { block: total });
  for (const { streams, rate } of iperf3) add(`iperf3/${streams}-streams`, rate, 'GB/s', { streams });
  if (iperf3Why !== undefined) skip('iperf3', iperf3Why);
  for (const { name, unusable, throughput, latency, perDescriptor } of result.contenders) {
    if (unusable !== undefined) skip(name, unusable);
    for (const row of throughput) {
      for (const [block, found] of row.rates) {
        const id = `${name}/${row.op}/${sizeText(block).replace(' ', '')}/${verifyText(row)}`;
        const details = { transport: name, op: row.op, block, verify: row.verify };
        if (typeof found === 'string') skip(id, found, details);
        else {
          add(id, found, 'GB/s', { ...baseline, ...(memcpy && { ratio: rounded(found / memcpy) }), ...details });
        }
      }
    }
    for (const [percentile, value] of Object.entries(latency ?? {})) {
      add(`${name}/read/4KiB/one-at-a-time/${percentile}`, value, 'us', { transport: name, percentile });
    }
    if (perDescriptor !== undefined) {
      add(`${name}/copy/64B/per-descriptor`, perDescriptor, 'ns', { transport: name, block: 64, count: 8192 });
    }
  }
  return lines.map((line) => JSON.stringify(line));
}

const verifyText = ({ verify }: Throughput) => (verify === 'none' ? 'no-verify' : `verify-${verify}`);
const rounded = (value: number) => Number(value.toPrecision(5));
