/** A view as lines of text, no wider and no more than the terminal has room for. */
import type { View } from '../top/view.js';
import { printable } from './printable.js';

export interface Room {
  columns: number;
  /** Infinity: as many lines as there are. */
  rows: number;
}

const BAR = 20;

export function screen(view: View, { columns, rows }: Room): string[] {
  const { hitRate, totalHitRate } = view;
  const head = [
    `mooncake master ${view.master}${view.restarted ? '   (was started again)' : ''}`,
    `memory   ${bar(view.usedBytes, view.capacityBytes)} ${bytes(view.usedBytes)} of ${bytes(view.capacityBytes)}`,
    `clients  ${view.clients}   segments ${view.segments.length}   objects ${view.objects.toLocaleString('en')}`,
    `hits     ${percent(hitRate)} now, ${percent(totalHitRate)} in all   ${rate(view.lookupsPerSecond)} keys/s`,
    `evicted  ${rate(view.evictedPerSecond)} objects/s   ${bytes(view.evictedBytesPerSecond)}/s`,
  ];
  const misses = Object.entries(view.totalMisses).filter(([, count]) => count > 0);
  if (misses.length > 0) {
    const text = ([reason, count]: [string, number]) =>
      `${reason} ${rate(view.misses[reason])}/s, ${count.toLocaleString('en')} in all`;
    head.push(`misses   ${misses.map(text).join('   ')}`);
  }
  if (view.delayMs !== null || view.residentBytes !== null) {
    const delay = view.delayMs === null ? '' : `event loop p99 ${milliseconds(view.delayMs)}   `;
    head.push(`process  ${delay}memory ${bytes(view.residentBytes ?? 0)}`);
  }
  // Half of what is left for each list, and what the calls do not need for the segments.
  const left = Math.max(4, rows - head.length - 4);
  const calls = view.calls.slice(0, Math.max(2, Math.floor(left / 2))).map((call) => {
    const times = `${milliseconds(call.p50Ms).padStart(9)} ${milliseconds(call.p99Ms).padStart(9)}`;
    const counts = `${rate(call.perSecond).padStart(10)} ${rate(call.failuresPerSecond).padStart(10)}`;
    return `${printable(call.method).padEnd(32)} ${counts} ${times}`;
  });
  const segments = view.segments.slice(0, Math.max(2, left - calls.length)).map((segment) => {
    const fill = `${bar(segment.usedBytes, segment.capacityBytes)} ${bytes(segment.capacityBytes).padStart(9)}`;
    const change = segment.change === 0 ? '' : ` ${segment.change > 0 ? '+' : '-'}${bytes(Math.abs(segment.change))}/s`;
    return `${printable(segment.name).padEnd(32)} ${fill}${change}${segment.status === 'OK' ? '' : ` ${printable(segment.status)}`}`;
  });
  const titles = `${'calls'.padEnd(32)} ${'a second'.padStart(10)} ${'failed'.padStart(10)} ${'p50'.padStart(9)} ${'p99'.padStart(9)}`;
  const all = [...head, '', titles, ...calls, '', 'segments', ...segments];
  return all.slice(0, rows).map((line) => line.slice(0, columns));
}

function bar(used: number, capacity: number): string {
  const share = capacity > 0 ? Math.min(1, used / capacity) : 0;
  const full = Math.round(share * BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}] ${percent(capacity > 0 ? share : null).padStart(6)}`;
}

const percent = (share: number | null) => (share === null ? '-' : `${(100 * share).toFixed(1)}%`);
const milliseconds = (ms: number | null) => (ms === null ? '-' : `${ms.toFixed(ms < 10 ? 2 : 0)} ms`);

function rate(perSecond: number): string {
  return perSecond >= 100 ? Math.round(perSecond).toLocaleString('en') : perSecond.toFixed(perSecond === 0 ? 0 : 1);
}

function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}
