/** GB/s over block size as an SVG, reads and writes beside each other: solid lines verified, dashed ones not. */
import { escapeXml, round, STYLE, spread } from '../../replay/drawing.js';
import { LANES } from './lanes.js';
import type { BenchResult, Throughput } from './run.js';
import { sizeText } from './table.js';

const WIDTH = 1160;
const HEIGHT = 520;
const LEFT = 64;
const TOP = 88;
const BOTTOM = 72;
const PANEL = 392;
const LABELS = 146;
const STEPS = [1, 2, 5];
/** Of a sixth line, in the style of the others. */
const SIXTH = ['#6f42c1', '#b392f0'];

interface Line {
  name: string;
  style: string;
  solid: boolean;
  points: [block: number, rate: number][];
}

/** The SVG text. `machine` names what was measured. */
export function plotSvg(result: BenchResult, machine: string): string {
  const panels = (['read', 'write'] as const).map((op) => ({ op, lines: linesOf(result, op) }));
  const rates = panels.flatMap(({ lines }) => lines.flatMap(({ points }) => points.map(([, rate]) => rate)));
  const least = Math.min(0.1, ...rates);
  const most = Math.max(1, result.memcpy ?? 0, ...rates);
  const drawn = panels.map(({ op, lines }, at) =>
    panel(op === 'read' ? 'reads' : 'writes', lines, LEFT + at * (PANEL + LABELS), result, [least, most]),
  );
  const verified = 'solid: every byte compared with its checksum, dashed: not compared';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">
  <title>Transfers between two processes: GB/s by block size</title>
  <style>${STYLE}
    .dash { stroke-dasharray: 6 4; stroke-width: 1.75 } .s5 { stroke: ${SIXTH[0]} } .f5 { fill: ${SIXTH[0]} }
    @media (prefers-color-scheme: dark) { .s5 { stroke: ${SIXTH[1]} } .f5 { fill: ${SIXTH[1]} } }
  </style>
  <rect class="page" width="${WIDTH}" height="${HEIGHT}"/>
  <text class="title" x="${LEFT}" y="30">Transfers between two processes: GB/s by block size</text>
  <text class="quiet" x="${LEFT}" y="50">${escapeXml(machine)}; ${verified}</text>
  ${drawn.join('\n  ')}
</svg>
`;
}

/** What is not ours is grey. */
function linesOf({ contenders }: BenchResult, op: Exclude<Throughput['op'], 'copy'>): Line[] {
  return contenders.flatMap(({ name, ours, throughput }) =>
    throughput
      .filter((row) => row.op === op || row.op === 'copy')
      .map(({ verify, rates }) => ({
        name,
        style: ours ? `${LANES.findIndex((lane) => lane.name === name)}` : 'x',
        solid: verify === 'full',
        points: [...rates].filter((point): point is [number, number] => typeof point[1] === 'number'),
      })),
  );
}

function panel(
  title: string,
  lines: readonly Line[],
  left: number,
  { sizes, memcpy }: BenchResult,
  [least, most]: readonly [least: number, most: number],
): string {
  const [right, bottom] = [left + PANEL, HEIGHT - BOTTOM];
  const [first, last] = [Math.min(...sizes), Math.max(...sizes)];
  const x = (block: number) =>
    first === last ? (left + right) / 2 : left + ((right - left) * Math.log(block / first)) / Math.log(last / first);
  const marks = scale(least, most);
  const [low, high] = [marks[0], marks[marks.length - 1]];
  const y = (rate: number) => bottom - ((bottom - TOP) * Math.log(rate / low)) / Math.log(high / low);
  const parts = [`<text class="name" x="${left}" y="${TOP - 14}">${title}, GB/s (logarithmic)</text>`];
  for (const mark of marks) {
    const at = round(y(mark));
    parts.push(`<line class="${mark === low ? 'axis' : 'grid'}" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
    parts.push(`<text x="${left - 8}" y="${at + 4}" text-anchor="end">${mark}</text>`);
  }
  for (const block of sizes) {
    const at = round(x(block));
    parts.push(`<line class="axis" x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 5}"/>`);
    parts.push(`<text x="${at}" y="${bottom + 22}" text-anchor="middle">${sizeText(block)}</text>`);
  }
  if (memcpy !== undefined) {
    const at = round(y(memcpy));
    parts.push(`<line class="limit" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
    parts.push(`<text class="quiet" x="${left + 4}" y="${at - 6}">memcpy, one core: ${memcpy.toFixed(1)}</text>`);
  }
  for (const { name, style, solid, points } of lines) {
    if (points.length === 0) continue;
    const path = points.map(([block, rate]) => `${round(x(block))},${round(y(rate))}`).join(' ');
    parts.push(`<polyline class="line s${style}${solid ? '' : ' dash'}" points="${path}"/>`);
    for (const [block, rate] of points) {
      const tip = `${name}, ${sizeText(block)}: ${rate.toPrecision(3)} GB/s`;
      const place = `cx="${round(x(block))}" cy="${round(y(rate))}"`;
      parts.push(`<circle class="dot f${style}" ${place} r="3.5"><title>${escapeXml(tip)}</title></circle>`);
    }
  }
  const names = new Map<string, { name: string; style: string; y: number }>();
  for (const { name, style, points } of lines) {
    const end = points.at(-1);
    if (end && !names.has(name)) names.set(name, { name, style, y: y(end[1]) });
  }
  for (const { name, style, y: at } of spread([...names.values()], bottom)) {
    parts.push(`<text class="name f${style}" x="${right + 10}" y="${round(at + 4)}">${escapeXml(name)}</text>`);
  }
  const middle = (left + right) / 2;
  parts.push(`<text class="quiet" x="${middle}" y="${HEIGHT - 22}" text-anchor="middle">size of a block</text>`);
  return parts.join('\n  ');
}

/** Marks 1, 2, 5 times powers of ten that enclose both. */
function scale(least: number, most: number): number[] {
  const marks: number[] = [];
  for (let power = -6; power <= 6; power++) {
    for (const step of STEPS) marks.push(Number((step * 10 ** power).toPrecision(1)));
  }
  const from = marks.findLastIndex((mark) => mark <= least);
  const to = marks.findIndex((mark) => mark >= most);
  return marks.slice(Math.max(0, from), to < 0 ? undefined : to + 1);
}
