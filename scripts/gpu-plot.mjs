// `node scripts/gpu-plot.mjs TABLE.jsonl [MACHINE] >docs/gpu.svg`: GB/s over tokens, and the part of the link that it is, of what
// bench/gpu.bench.ts printed with --json, beside what Mooncake's vLLM guide publishes for the same bytes.
import { readFileSync } from 'node:fs';
import { escapeXml, round, STYLE, spread } from '../dist/src/replay/drawing.js';

const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM, PANEL, LABELS] = [1160, 480, 64, 92, 64, 392, 146];
const GIB = 2 ** 30 / 1e9;
/** Qwen3-8B, one prefill and one decode over 8 x 200 Gb/s RoCE; printed as GB/s, which are GiB/s (its sizes are binary). */
const PUBLISHED = new Map([
  [128, 36.53],
  [256, 60.78],
  [512, 78.73],
  [1024, 95.23],
  [2048, 112.88],
  [4096, 119.0],
  [8192, 127.57],
  [16384, 137.09],
  [32768, 142.25],
]);
const PUBLISHED_LINK = 200;

function measured(file) {
  const rows = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
  const of = (way) =>
    rows.flatMap(({ name, value, baseline }) => {
      const tokens = new RegExp(`^${way}, (\\d+) tokens$`).exec(name)?.[1];
      return tokens === undefined || !baseline ? [] : [[Number(tokens), value, baseline]];
    });
  return { d2h: of('d2h'), h2d: of('h2d') };
}

const [, , file, machine = 'one GPU'] = process.argv;
const { d2h, h2d } = measured(file);
const published = [...PUBLISHED].map(([tokens, rate]) => [tokens, rate * GIB]);
const rates = [
  { name: 'GPU to host', style: '0', points: d2h.map(([tokens, rate]) => [tokens, rate]) },
  { name: 'host to GPU', style: '1', points: h2d.map(([tokens, rate]) => [tokens, rate]) },
  { name: 'one copy (torch)', style: 'x', dash: true, points: d2h.map(([tokens, , one]) => [tokens, one]) },
  { name: 'published, RDMA', style: '2', dash: true, points: published },
];
const shares = [
  { name: 'GPU to host', style: '0', points: d2h.map(([tokens, rate, one]) => [tokens, (100 * rate) / one]) },
  { name: 'host to GPU', style: '1', points: h2d.map(([tokens, rate, one]) => [tokens, (100 * rate) / one]) },
  {
    name: 'published, RDMA',
    style: '2',
    dash: true,
    points: published.map(([at, rate]) => [at, (100 * rate) / PUBLISHED_LINK]),
  },
];

function panel(title, lines, left, most, step) {
  const [right, bottom] = [left + PANEL, HEIGHT - BOTTOM];
  const tokens = [...PUBLISHED.keys()];
  const x = (count) => left + (PANEL * Math.log2(count / tokens[0])) / Math.log2(tokens.at(-1) / tokens[0]);
  const y = (value) => bottom - ((bottom - TOP) * value) / most;
  const parts = [`<text class="name" x="${left}" y="${TOP - 14}">${title}</text>`];
  for (let mark = 0; mark <= most; mark += step) {
    const at = round(y(mark));
    parts.push(`<line class="${mark === 0 ? 'axis' : 'grid'}" x1="${left}" x2="${right}" y1="${at}" y2="${at}"/>`);
    parts.push(`<text x="${left - 8}" y="${at + 4}" text-anchor="end">${mark}</text>`);
  }
  for (const count of tokens) {
    const text = count < 1024 ? `${count}` : `${count / 1024}k`;
    parts.push(`<text x="${round(x(count))}" y="${bottom + 20}" text-anchor="middle">${text}</text>`);
  }
  for (const { name, style, dash, points } of lines) {
    const path = points.map(([at, value]) => `${round(x(at))},${round(y(value))}`).join(' ');
    parts.push(`<polyline class="line s${style}${dash ? ' dash' : ''}" points="${path}"/>`);
    for (const [at, value] of points) {
      const place = `cx="${round(x(at))}" cy="${round(y(value))}"`;
      const tip = `${name}, ${at} tokens: ${value.toFixed(1)}`;
      parts.push(`<circle class="dot f${style}" ${place} r="3.5"><title>${escapeXml(tip)}</title></circle>`);
    }
  }
  const names = lines.map(({ name, style, points }) => ({ name, style, y: y(points.at(-1)[1]) }));
  for (const { name, style, y: at } of spread(names, bottom)) {
    parts.push(`<text class="name f${style}" x="${right + 10}" y="${round(at + 4)}">${escapeXml(name)}</text>`);
  }
  parts.push(
    `<text class="quiet" x="${(left + right) / 2}" y="${HEIGHT - 18}" text-anchor="middle">tokens of 147,456 bytes</text>`,
  );
  return parts.join('\n  ');
}

const title = "KV blocks of 64 KiB between another process's GPU memory and host memory";
const note = 'published: 8 x 200 Gb/s RoCE between two hosts, 200 GB/s';
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">
  <title>${title}</title>
  <style>${STYLE}
    .dash { stroke-dasharray: 6 4; stroke-width: 1.75 }
  </style>
  <rect class="page" width="${WIDTH}" height="${HEIGHT}"/>
  <text class="title" x="${LEFT}" y="30">${title}</text>
  <text class="quiet" x="${LEFT}" y="50">${escapeXml(machine)}; ${note}</text>
  ${panel('GB/s', rates, LEFT, 160, 40)}
  ${panel('per cent of the link (one copy; 200 GB/s)', shares, LEFT + PANEL + LABELS, 100, 25)}
</svg>
`);
